"""Files that are whole or not there: written beside their place, flushed to the disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

__all__ = ["partial_name", "replacing", "replacing_bytes", "sync"]


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_name(path: Path) -> Path:
    """Return where a file or folder grows before it takes its place."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Give a text file that takes a path's place when the block ends, and only if it ends well.

    Raises:
        OSError: It cannot be written; what was at the path before is still there.
    """
    with replacing_bytes(path) as target:
        text = TextIOWrapper(target, encoding="utf-8")
        yield text
        text.flush()


@contextmanager
def replacing_bytes(path: Path) -> Iterator[BinaryIO]:
    """Do the same for a file of bytes."""
    partial = partial_name(path)
    try:
        with partial.open("wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
