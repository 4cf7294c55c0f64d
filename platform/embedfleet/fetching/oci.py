"""An artifact in a container registry: a manifest by its digest, and a blob for each file.

A layer is a file where it has a title, as tools that push folders write it, or a model's file path.
Sources: OCI distribution and image specifications 1.1; CNCF ModelPack for the latter; Docker's
token authentication for how registries are asked for access.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from embedfleet.errors import FetchFailed, FetchInterrupted, SecretMissing
from embedfleet.fetching.ranges import RangeClient
from embedfleet.fetching.source import RemoteFile, Stream, mismatch

__all__ = ["OciFiles", "Reference", "Registry", "login_of"]

_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_TITLES: Final = ("org.opencontainers.image.title", "org.cncf.model.filepath")
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')
_DOCKER: Final = ("docker.io", "index.docker.io")
_DOCKER_HOST: Final = "registry-1.docker.io"
_LOCAL: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an artifact is.

    Attributes:
        registry: Host, and port if it has one.
        digest: `sha256:` and 64 hex digits.
    """

    registry: str
    repository: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `registry/repository@sha256:...`; a tag before the digest says nothing more."""
        path, _, digest = text.partition("@")
        registry, _, repository = path.partition("/")
        repository = repository.partition(":")[0]
        if not repository:
            raise FetchFailed(
                f"spec.source.oci.reference is {text}, which names no registry. Write it as "
                "registry.example/qwen3@sha256:...",
                field="spec.source.oci.reference",
            )
        return cls(registry, repository, digest)

    @property
    def address(self) -> str:
        """Base of the repository's interface; only this machine is spoken to in the clear."""
        host = _DOCKER_HOST if self.registry in _DOCKER else self.registry
        scheme = "http" if host.partition(":")[0] in _LOCAL else "https"
        return f"{scheme}://{host}/v2/{self.repository}"


class Registry:
    """Gets access as a registry asks for it.

    Args:
        login: User and password; None asks as nobody.
    """

    def __init__(self, login: tuple[str, str] | None) -> None:
        self._login = login

    def authorize(self, refusal: httpx.Response) -> Mapping[str, str]:
        """Answer the registry's own 401: with a token of the service it names, or with the login.

        Raises:
            FetchFailed: The service gives no token, or would be sent the login in the clear.
            FetchInterrupted: The service does not answer.
        """
        scheme, _, rest = refusal.headers.get("WWW-Authenticate", "").partition(" ")
        named = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in named:
            return self._basic()
        _refuse_clear(refusal.url, named["realm"])
        asked = {key: named[key] for key in ("service", "scope") if key in named}
        try:
            answer = httpx.get(named["realm"], params=asked, headers=self._basic(), timeout=30)
        except httpx.TransportError as error:
            raise FetchInterrupted(f"{named['realm']} gave no token ({error}).") from error
        if not answer.is_success:
            raise FetchFailed(
                f"{named['realm']} answered {answer.status_code}: no token for {asked}. Check "
                "the Secret of spec.source.oci.pullSecretName, and that it may pull."
            )
        found = answer.json()
        return {"Authorization": f"Bearer {found.get('token') or found.get('access_token')}"}

    def _basic(self) -> Mapping[str, str]:
        if self._login is None:
            return {}
        text = base64.b64encode(":".join(self._login).encode()).decode()
        return {"Authorization": f"Basic {text}"}


class OciFiles:
    """Files of an artifact."""

    def __init__(self, client: RangeClient, reference: Reference) -> None:
        self._client = client
        self._reference = reference

    def files(self) -> Sequence[RemoteFile]:
        """Read the manifest, which must be the one that the reference names."""
        reference = self._reference
        address = f"{reference.address}/manifests/{reference.digest}"
        content = self._client.get(address, _MANIFESTS).content
        found = hashlib.sha256(content).hexdigest()
        if f"sha256:{found}" != reference.digest:
            raise mismatch("the manifest", reference.digest.removeprefix("sha256:"), found)
        layers = json.loads(content).get("layers")
        if not layers:
            raise FetchFailed(
                f"{reference.digest} lists no files: it is an index of several artifacts, or "
                "empty. Give the digest of the one that holds the model."
            )
        files = [_file(layer) for layer in layers]
        if not any(file.path for file in files):
            raise FetchFailed(
                f"{reference.digest} holds archives only. Push the model's files one by one, each "
                f"with the annotation {_TITLES[0]}."
            )
        return files

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read a blob."""
        return self._client.open(f"{self._reference.address}/blobs/{file.version}", start)


def login_of(config: str, registry: str) -> tuple[str, str]:
    """Find a registry's user and password in what `docker login` writes.

    Raises:
        SecretMissing: It is not there.
    """
    names = {registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"}
    if registry in _DOCKER:
        names |= {"https://index.docker.io/v1/", *_DOCKER}
    try:
        logins: dict[str, dict[str, str]] = json.loads(config)["auths"]
        login = next(each for name, each in logins.items() if name in names)
        if "auth" in login:
            user, _, password = base64.b64decode(login["auth"]).decode().partition(":")
            return user, password
        return login["username"], login["password"]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise SecretMissing(
            f"The Secret of spec.source.oci.pullSecretName holds no login for {registry}. Create "
            f"it with kubectl create secret docker-registry --docker-server {registry}.",
            field="spec.source.oci.pullSecretName",
        ) from error


def _refuse_clear(registry: httpx.URL, realm: str) -> None:
    scheme = realm.partition("://")[0].lower()
    if scheme != "https" and not scheme == registry.scheme == "http":
        raise FetchFailed(
            f"{registry.host} sends those who log in to {realm}, which is not https: the login is "
            "not sent in the clear. Have the registry name an https realm."
        )


def _file(layer: dict[str, Any]) -> RemoteFile:
    notes = layer.get("annotations") or {}
    digest = str(layer["digest"])
    title = next((str(notes[key]) for key in _TITLES if key in notes), "")
    if str(layer.get("mediaType", "")).endswith((".tar", "+gzip", "+zstd", ".gzip")):
        # A folder, or what must be unpacked first: nothing here is named after it.
        title = ""
    return RemoteFile(
        path=title,
        version=digest,
        num_bytes=int(layer["size"]),
        sha256=digest.removeprefix("sha256:"),
    )
