"""A folder on a web server, which cannot be listed: the manifest says which files there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from urllib.parse import quote

from embedfleet.fetching.ranges import RangeClient
from embedfleet.fetching.source import RemoteFile, Stream

__all__ = ["WebFiles"]


class WebFiles:
    """Files below an address.

    Args:
        client: Carries the headers, if there are any.
        digests: SHA-256 of each file, by its path below the address.
    """

    def __init__(self, client: RangeClient, address: str, digests: Mapping[str, str]) -> None:
        self._client = client
        self._address = address.rstrip("/")
        self._digests = digests

    def files(self) -> Sequence[RemoteFile]:
        """Give the files of the manifest; asks nobody."""
        return [RemoteFile(path, sha, sha256=sha) for path, sha in self._digests.items()]

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read a file."""
        return self._client.open(f"{self._address}/{quote(file.path)}", start)
