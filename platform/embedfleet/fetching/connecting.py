"""From what a manifest calls a source to one that answers, with the credentials it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from embedfleet.errors import SecretMissing
from embedfleet.fetching.hub import HUB, HubFiles
from embedfleet.fetching.objects import ObjectFiles, gcs_store, s3_store
from embedfleet.fetching.oci import OciFiles, Reference, Registry, login_of
from embedfleet.fetching.ranges import RangeClient
from embedfleet.fetching.source import Source
from embedfleet.fetching.web import WebFiles
from embedfleet.rendering.cache import (
    GCS_KEY,
    HEADER_PREFIX,
    HUB_TOKEN,
    REGISTRY_CREDENTIALS,
    S3_KEY_ID,
    S3_SECRET_KEY,
)
from embedfleet.resources.model_cache import HttpSource, ModelCacheSpec, OciSource

__all__ = ["connect"]

Environment = Mapping[str, str]


@contextmanager
def connect(spec: ModelCacheSpec, environment: Environment) -> Iterator[Source]:
    """Open the source of a cache whose files are fetched.

    Args:
        spec: Its source is not one that is read where it lies.
        environment: Holds credentials, and `HF_ENDPOINT` for a mirror of the hub.

    Raises:
        SecretMissing: The manifest names a Secret whose values are not there.
    """
    source = spec.source
    if source.s3 is not None:
        named = source.s3.credentials_secret_name
        values = _values(environment, "s3.credentialsSecretName", named, S3_KEY_ID, S3_SECRET_KEY)
        key = (values[0], values[1]) if values else None
        yield ObjectFiles(s3_store(source.s3, key), source.s3.prefix, _remedy("s3"))
    elif source.gcs is not None:
        named = source.gcs.credentials_secret_name
        values = _values(environment, "gcs.credentialsSecretName", named, GCS_KEY)
        store = gcs_store(source.gcs, values[0] if values else None)
        yield ObjectFiles(store, source.gcs.prefix, _remedy("gcs"))
    else:
        with _over_http(spec, environment) as found:
            yield found


@contextmanager
def _over_http(spec: ModelCacheSpec, environment: Environment) -> Iterator[Source]:
    hub, web, oci = spec.source.hub, spec.source.http, spec.source.oci
    if hub is not None:
        _values(environment, "hub.tokenSecretName", hub.token_secret_name, HUB_TOKEN)
        token = environment.get(HUB_TOKEN)
        secrets = {"Authorization": f"Bearer {token}"} if token else {}
        with RangeClient(secrets, _remedy("hub")) as client:
            yield HubFiles(client, environment.get("HF_ENDPOINT") or HUB, hub.name, spec.commit)
    elif web is not None:
        with RangeClient(_headers(web, environment), _remedy("http")) as client:
            yield WebFiles(client, web.address, spec.digests.files)
    elif oci is not None:
        reference = Reference.of(oci.reference)
        registry = Registry(_login(oci, reference, environment))
        with RangeClient({}, _remedy("oci"), registry.authorize) as client:
            yield OciFiles(client, reference)


def _headers(source: HttpSource, environment: Environment) -> dict[str, str]:
    if source.headers_secret_name is None:
        return {}
    found = {
        name.removeprefix(HEADER_PREFIX): value
        for name, value in environment.items()
        if name.startswith(HEADER_PREFIX)
    }
    if not found:
        raise _missing("http.headersSecretName", source.headers_secret_name, f"{HEADER_PREFIX}NAME")
    return found


def _login(
    source: OciSource, reference: Reference, environment: Environment
) -> tuple[str, str] | None:
    named = source.pull_secret_name
    values = _values(environment, "oci.pullSecretName", named, REGISTRY_CREDENTIALS)
    return login_of(values[0], reference.registry) if values else None


def _values(
    environment: Environment, field: str, secret: str | None, *names: str
) -> tuple[str, ...]:
    """Read what a Secret holds; nothing where the manifest names none."""
    if secret is None:
        return ()
    for name in names:
        if not environment.get(name):
            raise _missing(field, secret, name)
    return tuple(environment[name] for name in names)


def _missing(field: str, secret: str, variable: str) -> SecretMissing:
    return SecretMissing(
        f"spec.source.{field} is {secret}, but {variable} is not set. In a cluster the Secret "
        "lacks its key; elsewhere set the variable.",
        field=f"spec.source.{field}",
    )


def _remedy(kind: str) -> str:
    return f"Check spec.source.{kind}, and whether its credentials may read it."
