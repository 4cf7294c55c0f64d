"""One file, whole or not at all: what was fetched before is kept, and the whole must be right.

A source that breaks off is asked again from where it did, as long as every few attempts bring
something. Knows no protocol and no final place.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from embedfleet.errors import FetchInterrupted
from embedfleet.fetching.source import RemoteFile, Source, mismatch

__all__ = ["Progress", "complete", "mebibytes", "sha256_of"]

Report = Callable[[str], None]

_ATTEMPTS: Final = 5
_SYNC_BYTES: Final = 64 << 20
_REPORTED_SYNCS: Final = 8
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How a person follows, and how patient to be.

    Attributes:
        report: Is told a line at a time what goes on.
        pause_seconds: Between the first two attempts; doubles from one to the next.
    """

    report: Report
    pause_seconds: float = 0.5


def complete(source: Source, file: RemoteFile, part: Path, progress: Progress) -> str:
    """Bring `part` to its end and give its SHA-256.

    Raises:
        DigestMismatch: It is another file; `part` is gone.
        FetchInterrupted: Attempt after attempt brought nothing; `part` holds what came before.
    """
    resumed = _keep_what_is_sure(file, part)
    digest = _persist(source, file, part, progress)
    if file.sha256 not in ("", digest) and resumed:
        # The beginning may be what is wrong, if a machine lost power while it was written.
        part.unlink()
        digest = _persist(source, file, part, progress)
    if file.sha256 not in ("", digest):
        part.unlink()
        raise mismatch(file.path, file.sha256, digest)
    return digest


def sha256_of(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mebibytes(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / (1 << 20):,.1f} MiB"


def _keep_what_is_sure(file: RemoteFile, part: Path) -> bool:
    """Drop what a loss of power may have spoilt, where no digest will tell; say if any is left."""
    kept = _size(part)
    if kept and not file.sha256:
        kept -= kept % _SYNC_BYTES
        os.truncate(part, kept)
    return kept > 0


def _persist(source: Source, file: RemoteFile, part: Path, progress: Progress) -> str:
    """Ask again while that brings something."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _append(source, file, part, progress.report)
        except FetchInterrupted as interruption:
            failures = 1 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                raise
            kept = mebibytes(_size(part))
            progress.report(f"{file.path}: {interruption.message} {kept} are kept.")
            time.sleep(progress.pause_seconds * 2 ** (failures - 1))


def _append(source: Source, file: RemoteFile, part: Path, report: Report) -> str:
    have = _size(part)
    if file.num_bytes is not None and have >= file.num_bytes and part.exists():
        if have == file.num_bytes:
            return sha256_of(part)
        part.unlink()
        have = 0
    with part.open("r+b" if have else "w+b") as out, source.open(file, have) as stream:
        if stream.start > have:
            raise FetchInterrupted(f"{file.path} came from byte {stream.start:,}, not {have:,}.")
        digest = _hash_beginning(out, stream.start)
        out.truncate()
        written = out.tell()
        for chunk in stream.chunks:
            out.write(chunk)
            digest.update(chunk)
            syncs, written = written // _SYNC_BYTES, written + len(chunk)
            if written // _SYNC_BYTES > syncs:
                _sync(out)
                if (syncs + 1) % _REPORTED_SYNCS == 0:
                    report(f"{file.path}: {mebibytes(written)}")
        _sync(out)
    if file.num_bytes not in (None, written):
        raise FetchInterrupted(f"{file.path} ended after {written:,} bytes of {file.num_bytes:,}.")
    return digest.hexdigest()


def _hash_beginning(stream: BinaryIO, num_bytes: int) -> hashlib._Hash:
    """Hash what is kept, and stand behind it."""
    digest = hashlib.sha256()
    while num_bytes and (block := stream.read(min(num_bytes, _BLOCK_BYTES))):
        digest.update(block)
        num_bytes -= len(block)
    return digest


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
