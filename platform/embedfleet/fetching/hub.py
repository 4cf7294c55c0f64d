"""A repository on the hub, at one commit.

Listed and read over the hub's HTTP interface, because the hub's own client starts every file anew
when it was interrupted, and a large one may never end that way. Large files come with their
SHA-256. Source: the hub's OpenAPI description, `/api/models/{name}/tree/{revision}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import quote

from embedfleet.errors import FetchFailed
from embedfleet.fetching.ranges import RangeClient
from embedfleet.fetching.source import RemoteFile, Stream

__all__ = ["HUB", "HubFiles"]

HUB: Final = "https://huggingface.co"


class HubFiles:
    """Files of a repository.

    Args:
        client: Carries the token, if there is one.
        endpoint: Address of the hub, or of a mirror.
    """

    def __init__(self, client: RangeClient, endpoint: str, name: str, commit: str) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")
        self._name = name
        self._commit = commit

    def files(self) -> Sequence[RemoteFile]:
        """List the repository, folders included."""
        return [_file(each) for each in self._entries() if each.get("type") == "file"]

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read a file of the commit."""
        address = f"{self._endpoint}/{self._name}/resolve/{self._commit}/{quote(file.path)}"
        return self._client.open(address, start)

    def _entries(self) -> Iterator[dict[str, Any]]:
        address = f"{self._endpoint}/api/models/{self._name}/tree/{self._commit}?recursive=true"
        while address:
            response = self._client.get(address)
            try:
                yield from response.json()
            except ValueError as error:
                raise FetchFailed(
                    f"{self._endpoint} did not answer with a list of files: it may not be a hub. "
                    "Check HF_ENDPOINT."
                ) from error
            address = response.links.get("next", {}).get("url", "")


def _file(entry: dict[str, Any]) -> RemoteFile:
    stored = entry.get("lfs") or {}
    sha256 = str(stored.get("oid", ""))
    return RemoteFile(
        path=str(entry["path"]),
        version=sha256 or str(entry["oid"]),
        num_bytes=int(entry["size"]),
        sha256=sha256,
    )
