"""The `ModelCache` kind: a model's files, fetched once into a volume and held to their digests.

Says where files come from and what they must be. How they are fetched, and where a volume is
mounted, is the operator's matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from embedfleet.catalog import published
from embedfleet.resources.base import (
    API_VERSION,
    PATTERNS,
    Name,
    Part,
    PullSecrets,
    Resource,
    Subdomain,
    Violation,
    repetitions,
)

__all__ = ["FILE", "CacheSource", "Digests", "ModelCache", "ModelCacheSpec", "Storage"]

_HUB_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
_COMMIT: Final = r"^[0-9a-f]{40}$"
_FOLDER: Final = r"^/[^\p{Z}\p{Cc},]*$"
_PREFIX: Final = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
_BUCKET: Final = r"^[a-z0-9][a-z0-9._-]*[a-z0-9]$"
_REGION: Final = r"^[a-z0-9-]+$"
_ADDRESS: Final = r"^https?://[A-Za-z0-9._~:/%@+-]+$"
_OCI: Final = r"^[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$"
_SHA256: Final = r"^[0-9a-f]{64}$"
_CLASS: Final = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
FILE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
PATTERNS.update(
    {
        _HUB_NAME: "must be a hub name such as Qwen/Qwen3-Embedding-0.6B",
        _COMMIT: "must be a commit of 40 lower-case hex digits: branches and tags can move",
        _FOLDER: "must be an absolute folder without blanks and commas",
        _PREFIX: "must be a path such as models/qwen3, without a leading /",
        _BUCKET: "must be a bucket's name: lower-case letters, digits and . _ -",
        _REGION: "must be a region such as eu-central-1",
        _ADDRESS: "must be an address such as https://models.example/qwen3",
        _OCI: "must be a reference with its digest, such as registry/qwen3@sha256:...",
        _SHA256: "must be a SHA-256 of 64 lower-case hex digits",
        _CLASS: "must be the name of a StorageClass",
        FILE: "must be a file's path inside the model's folder, such as config.json",
    }
)

_MAX_FILE_CHARACTERS: Final = 253

Prefix = Annotated[str, Field(pattern=_PREFIX, max_length=1024)]
Bucket = Annotated[str, Field(pattern=_BUCKET, min_length=3, max_length=222)]
Address = Annotated[str, Field(pattern=_ADDRESS, max_length=1024)]
Sha256 = Annotated[str, Field(pattern=_SHA256, max_length=64)]


class HubSource(Part):
    """A repository on the hub."""

    name: Annotated[str, Field(pattern=_HUB_NAME, max_length=193)]
    """Name of the repository, such as Qwen/Qwen3-Embedding-0.6B."""
    token_secret_name: Name | None = None
    """Secret whose key `token` opens repositories that are not public."""


class PathSource(Part):
    """A folder on every node, read where it lies."""

    folder: Annotated[str, Field(pattern=_FOLDER, max_length=1024)]
    """Absolute path of the folder."""


class PvcSource(Part):
    """A folder of a volume that exists, read where it lies."""

    claim_name: Annotated[str, Field(pattern=_CLASS, max_length=253)]
    """Name of the PersistentVolumeClaim."""
    folder: Annotated[str, Field(pattern=_FOLDER, max_length=1024)] = "/"
    """Folder inside the volume."""


class S3Source(Part):
    """Objects of an S3 bucket, or of a store that speaks its protocol."""

    bucket: Bucket
    """Name of the bucket."""
    prefix: Prefix
    """Path that the names of the model's objects start with."""
    region: Annotated[str, Field(pattern=_REGION, max_length=63)] | None = None
    """Region of the bucket."""
    endpoint: Address | None = None
    """Address of the store. Default: that of the region."""
    credentials_secret_name: Name | None = None
    """Secret with the keys `accessKeyId` and `secretAccessKey`. Default: the identity
    of `serviceAccountName`."""


class GcsSource(Part):
    """Objects of a Google Cloud Storage bucket."""

    bucket: Bucket
    """Name of the bucket."""
    prefix: Prefix
    """Path that the names of the model's objects start with."""
    credentials_secret_name: Name | None = None
    """Secret whose key `key.json` is a service account's. Default: the identity
    of `serviceAccountName`."""


class OciSource(Part):
    """An artifact in a container registry."""

    reference: Annotated[str, Field(pattern=_OCI, max_length=512)]
    """Reference with its digest: tags can move."""
    pull_secret_name: Name | None = None
    """Secret of type kubernetes.io/dockerconfigjson."""


class HttpSource(Part):
    """A folder on a web server, which cannot be listed: `digests.files` says what to fetch."""

    address: Address
    """Address of the folder."""
    headers_secret_name: Name | None = None
    """Secret whose keys and values are sent as headers."""


class CacheSource(Part):
    """Where the files come from: exactly one of these."""

    hub: HubSource | None = None
    """A repository on the hub."""
    path: PathSource | None = None
    """A folder on every node."""
    pvc: PvcSource | None = None
    """A folder of a volume that exists."""
    s3: S3Source | None = None
    """Objects of an S3 bucket."""
    gcs: GcsSource | None = None
    """Objects of a Google Cloud Storage bucket."""
    oci: OciSource | None = None
    """An artifact in a container registry."""
    http: HttpSource | None = None
    """A folder on a web server."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the sources that are set."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    def violations(self) -> Iterator[Violation]:
        """One source."""
        names = tuple(type(self).model_fields)
        if len(self.given) != 1:
            yield Violation(
                names[0], ", ".join(self.given) or "missing", "exactly one source is needed",
                f"Set one of {', '.join(names)}.", names,
            )  # fmt: skip


class Digests(Part):
    """What the files must be; anything else is refused."""

    weights: Sha256 | None = None
    """Digest of every tensor's name, type, shape and bytes, as the contract has it."""
    tokenizer: Sha256 | None = None
    """SHA-256 of `tokenizer.json`."""
    files: Annotated[dict[str, Sha256], Field(max_length=64, default_factory=dict)]
    """SHA-256 by file, as a path inside the model's folder."""

    def violations(self) -> Iterator[Violation]:
        """Files lie inside the folder."""
        # A rule, since structural schemas cannot say what a key looks like.
        for file in self.files:
            if len(file) > _MAX_FILE_CHARACTERS or not re.fullmatch(FILE, file):
                yield Violation("files", file, PATTERNS[FILE], "Correct the path.")


class AccessMode(StrEnum):
    """Who can mount the volume at once."""

    ONE_NODE = "ReadWriteOnce"
    MANY_NODES = "ReadWriteMany"


class Storage(Part):
    """The volume that files are fetched into."""

    size_gib: Annotated[int, Field(ge=1, le=65_536)] = 50
    """Size of the volume, in GiB."""
    storage_class_name: Annotated[str, Field(pattern=_CLASS, max_length=253)] | None = None
    """Class of the volume. Default: the cluster's."""
    access_mode: AccessMode = AccessMode.MANY_NODES
    """Who can mount it at once: replicas of many nodes need ReadWriteMany."""


class ModelCacheSpec(Part):
    """Where a model's files come from, what they must be, and where they are kept."""

    source: CacheSource
    """Where the files come from."""
    revision: Annotated[str, Field(pattern=_COMMIT, max_length=40)] | None = None
    """Commit of a hub source. Needed unless the release knows a pinned one."""
    digests: Digests = Digests(files={})
    """What the files must be."""
    storage: Storage | None = None
    """The volume. Default: 50 GiB of the cluster's default class."""
    image_pull_secrets: PullSecrets = ()
    """Secrets of this namespace with which the image of the Job that fetches is pulled."""
    service_account_name: Subdomain | None = None
    """ServiceAccount of that Job: who it is where a source needs no Secret. Default: `default`."""

    @property
    def commit(self) -> str:
        """The commit of a hub source, pinned ones filled in; empty for other sources."""
        known = published(self.source.hub.name) if self.source.hub else None
        return self.revision or (known.revision if known else "")

    @property
    def in_place(self) -> bool:
        """Whether files are read where they lie instead of being fetched."""
        return self.source.path is not None or self.source.pvc is not None

    def violations(self) -> Iterator[Violation]:
        """A revision where there are some; a volume where files are fetched; a list for HTTP."""
        yield from repetitions("imagePullSecrets", self.image_pull_secrets)
        hub = self.source.hub
        if hub is None and self.revision is not None:
            yield Violation(
                "revision", self.revision, "only a hub source has revisions",
                "Leave it out: digests identify other files.", ("source",),
            )  # fmt: skip
        known = published(hub.name) if hub else None
        if hub and self.revision is None and not (known and known.revision):
            yield Violation(
                "revision", "missing", f"no commit of {hub.name} is pinned, and its files can "
                "change", "Set the 40-digit commit that you want cached.", ("source",),
            )  # fmt: skip
        if self.in_place and self.storage is not None:
            yield Violation(
                "storage", "set", "files of path and pvc are read where they lie", "Leave it out.",
                ("source",),
            )  # fmt: skip
        if self.source.http and not self.digests.files:
            yield Violation(
                "digests.files", "missing", "a web server cannot be asked which files there are",
                "List each file with its SHA-256.", ("source",),
            )  # fmt: skip


class ModelCache(Resource):
    """A model's files in a volume."""

    api_version: Literal["embedfleet.io/v1alpha1"] = API_VERSION
    """Schema of this resource."""
    kind: Literal["ModelCache"] = "ModelCache"
    """Always ModelCache."""
    spec: ModelCacheSpec
    """What is wanted."""
