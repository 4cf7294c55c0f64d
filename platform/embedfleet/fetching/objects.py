"""Objects of an S3 or Google Cloud Storage bucket, or of a store that speaks either protocol.

An object's ETag is its version: reading asks for that one, so that two versions are never joined.
The client is the object_store crate's; it signs requests and finds a pod's identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Final

from embedfleet.errors import FetchFailed, FetchInterrupted
from embedfleet.fetching.source import RemoteFile, Stream
from embedfleet.resources.model_cache import GcsSource, S3Source

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, GCSConfig, GCSStore, RetryConfig, S3Config, S3Store

__all__ = ["ObjectFiles", "gcs_store", "s3_store"]

# As they come: what waits for a chunk to fill is lost when the rest does not come.
_CHUNK_BYTES: Final = 1
# The whole answer counts: a large file takes hours, and silence is what means failure.
_CLIENT: Final[ClientConfig] = {
    "connect_timeout": timedelta(seconds=30),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(days=1),
}
_REFUSED: Final = re.compile(r"status code: 4(?!08|25|29)\d\d")
_RETRIES: Final[RetryConfig] = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}


def s3_store(source: S3Source, key: tuple[str, str] | None) -> S3Store:
    """Connect to a bucket; without a key and its secret the process's own identity is used."""
    config: S3Config = {}
    if source.region is not None:
        config["region"] = source.region
    if source.endpoint is not None:
        config["endpoint"] = source.endpoint
    if key is not None:
        config["access_key_id"], config["secret_access_key"] = key
    plain = (source.endpoint or "").startswith("http://")
    options: ClientConfig = {**_CLIENT, "allow_http": plain}
    store: S3Store = _stores().S3Store(
        source.bucket, config=config, client_options=options, retry_config=_RETRIES
    )
    return store


def gcs_store(source: GcsSource, key: str | None) -> GCSStore:
    """Connect to a bucket; without a service account's key the process's own identity is used."""
    config: GCSConfig = {} if key is None else {"service_account_key": key}
    options: ClientConfig = {**_CLIENT, "allow_http": True}
    stores = _stores()
    from obstore.exceptions import BaseError

    try:
        store: GCSStore = stores.GCSStore(
            source.bucket, config=config, client_options=options, retry_config=_RETRIES
        )
    except BaseError as error:
        raise FetchFailed(
            f"The key of spec.source.gcs.credentialsSecretName is none: {_first_line(error)}. Put "
            "the JSON file of a service account into the Secret as key.json.",
            field="spec.source.gcs.credentialsSecretName",
        ) from error
    return store


def _stores() -> ModuleType:
    try:
        from obstore import store
    except ModuleNotFoundError as error:
        raise FetchFailed(
            "Buckets are read with a client that is not installed. Install embedfleet[fetch]."
        ) from error
    return store


class ObjectFiles:
    """Objects whose names start with a path.

    Args:
        store: The bucket.
        prefix: The path.
        remedy: What to do where the store refuses, as a sentence.
    """

    def __init__(self, store: S3Store | GCSStore, prefix: str, remedy: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._remedy = remedy

    def files(self) -> Sequence[RemoteFile]:
        """List the objects below the path."""
        with self._translated():
            return [
                RemoteFile(
                    path=each["path"].removeprefix(f"{self._prefix}/"),
                    version=each["e_tag"] or str(each["last_modified"]),
                    num_bytes=each["size"],
                )
                for batch in self._store.list(self._prefix)
                for each in batch
            ]

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Stream]:
        """Read an object of the version that was listed."""
        options: GetOptions = {"range": {"offset": start}} if start else {}
        if file.version.startswith('"'):
            options["if_match"] = file.version
        with self._translated():
            found = self._store.get(f"{self._prefix}/{file.path}", options=options)
            yield Stream(start, (bytes(each) for each in found.stream(_CHUNK_BYTES)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from obstore.exceptions import (
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            yield
        except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
            raise FetchFailed(f"{_first_line(error)}. {self._remedy}") from error
        except PreconditionError as error:
            raise FetchInterrupted("An object was replaced while it was read.") from error
        except BaseError as error:
            # Of a listing that is refused, the client says so in words only.
            if _REFUSED.search(str(error)):
                raise FetchFailed(f"{_first_line(error)}. {self._remedy}") from error
            raise FetchInterrupted(f"{_first_line(error)}.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
