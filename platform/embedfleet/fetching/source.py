"""What every source of files promises: a list, and the bytes of each from any place on.

Knows no protocol. Which files belong to a model is decided here, in one place for all sources:
weights as safetensors, and JSON. A pickle can run any code when it is read, so none is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from embedfleet.errors import DigestMismatch, FetchFailed
from embedfleet.resources.model_cache import FILE

__all__ = ["RemoteFile", "Source", "Stream", "chosen", "mismatch"]

_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its source describes it.

    Attributes:
        path: Inside the model's folder.
        version: Changes whenever the content does.
        num_bytes: None where only reading it tells.
        sha256: What it must be; empty where nobody says.
    """

    path: str
    version: str
    num_bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes on their way.

    Attributes:
        start: Offset of the first one: 0 where the source cannot begin in the middle.
        chunks: May raise only while the stream is open.
    """

    start: int
    chunks: Iterator[bytes]


class Source(Protocol):
    """Where a model's files come from."""

    def files(self) -> Sequence[RemoteFile]:
        """List what is there.

        Raises:
            FetchFailed: The source refuses, or has nothing.
            FetchInterrupted: It does not answer.
        """
        ...

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read a file from `start` on, or from its beginning if that cannot be.

        Raises:
            FetchFailed: The source refuses.
            FetchInterrupted: It does not answer, or breaks off while the stream is read.
        """
        ...


def chosen(found: Iterable[RemoteFile], digests: Mapping[str, str]) -> list[RemoteFile]:
    """Choose the files of a model, by path, each with what its SHA-256 must be.

    Args:
        found: What the source has.
        digests: What the manifest says of files: these belong to the model whatever they are.

    Raises:
        FetchFailed: A listed file is a pickle, or the source lacks it.
        DigestMismatch: The source itself says that a file is another.
    """
    for path in digests:
        if path.endswith(_PICKLES):
            raise FetchFailed(
                f"digests.files lists {path}: a pickle can run any code when it is read, so it is "
                "not fetched. List the safetensors.",
                field="spec.digests.files",
            )
    by_path = {file.path: file for file in found if _belongs(file.path) or file.path in digests}
    for path, expected in digests.items():
        if path not in by_path:
            raise FetchFailed(
                f"spec.digests lists {path}, which the source does not have. Correct the path, or "
                "where the source points.",
                field="spec.digests.files",
            )
        said = by_path[path].sha256
        if said not in ("", expected):
            raise mismatch(path, expected, said)
        by_path[path] = replace(by_path[path], sha256=expected)
    return [by_path[path] for path in sorted(by_path)]


def mismatch(what: str, expected: str, found: str) -> DigestMismatch:
    """Say that something is not what it must be."""
    return DigestMismatch(
        f"{what} is not what was asked for: SHA-256 {found}, expected {expected}. Nothing of it is "
        "served. Correct spec.digests or the source.",
        field="spec.digests",
    )


def _belongs(path: str) -> bool:
    """Tell a model's files from others; weights lie at the top, other formats' below."""
    if re.fullmatch(FILE, path) is None:
        return False
    return path.endswith(".json") or (path.endswith(".safetensors") and "/" not in path)
