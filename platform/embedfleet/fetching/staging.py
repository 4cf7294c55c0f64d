"""Where files are gathered until all of them are right, and what is known of those that are whole.

Lies inside the model's folder, since moving a file to its place at once needs both on one volume.
One process gathers at a time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from embedfleet.durable import sync
from embedfleet.errors import FetchInterrupted
from embedfleet.fetching.marker import STAGING, Fetched, read_marker, write_marker
from embedfleet.fetching.source import RemoteFile

__all__ = ["Staging", "staging_in"]

_STATE: Final = "state.json"
_LOCK: Final = "lock"
# Volumes without locks are written by one pod at a time: a Job starts no second one before.
_NO_LOCKS: Final = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)


class _Whole(BaseModel):
    """A file that is whole: which version, and its SHA-256."""

    version: str
    sha256: str


class _State(BaseModel):
    """What the folder holds; files without an entry are not whole."""

    identity: str = ""
    files: dict[str, _Whole] = {}


class Staging:
    """Files of one model on their way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / STAGING
        self.files = self.folder / "files"
        self._final = folder
        self._state = self._read()

    def keep_only(self, identity: str) -> None:
        """Start anew unless what was gathered belongs to the same model."""
        if self._state.identity != identity:
            self.clear()
            self._write(_State(identity=identity))

    def clear(self) -> None:
        """Forget everything, what an interrupted move has put in place too."""
        half_placed = read_marker(self.folder)
        for name in half_placed.files if half_placed else ():
            (self._final / name).unlink(missing_ok=True)
        self._empty()
        self._state = _State()

    def whole(self, file: RemoteFile) -> str:
        """Give the SHA-256 of a file that is there already; empty if it is not."""
        known = self._state.files.get(file.path)
        there = (self.files / file.path).is_file()
        return known.sha256 if known and known.version == file.version and there else ""

    def part(self, file: RemoteFile) -> Path:
        """Give the place where a version of a file grows."""
        key = hashlib.sha256(f"{file.path}\0{file.version}".encode()).hexdigest()[:32]
        return self.folder / f"{key}.part"

    def take(self, file: RemoteFile, sha256: str) -> None:
        """Note down that a file is whole."""
        target = self.files / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self.part(file).replace(target)
        whole = {**self._state.files, file.path: _Whole(version=file.version, sha256=sha256)}
        self._write(self._state.model_copy(update={"files": whole}))

    def place(self, fetched: Fetched) -> None:
        """Move everything to its place, the marker last."""
        for path in fetched.files:
            target = self._final / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # An earlier attempt may have got as far as this one.
            if (self.files / path).exists():
                (self.files / path).replace(target)
            sync(target.parent)
        write_marker(self._final, fetched)
        self._empty()

    def _empty(self) -> None:
        # The folder itself stays: a network volume keeps an open file that is deleted, the lock.
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def _read(self) -> _State:
        try:
            return _State.model_validate_json((self.folder / _STATE).read_bytes())
        except (FileNotFoundError, ValidationError):
            # What a loss of power leaves is not worth more than its files.
            return _State()

    def _write(self, state: _State) -> None:
        new = self.folder / f"{_STATE}.part"
        new.write_text(state.model_dump_json(indent=1))
        sync(new)
        new.replace(self.folder / _STATE)
        self._state = state


@contextmanager
def staging_in(folder: Path) -> Iterator[Staging]:
    """Open a folder's staging, and keep others out of it.

    Raises:
        FetchInterrupted: Another process is fetching into the folder, such as the pod of a Job
            that is being replaced.
    """
    (folder / STAGING).mkdir(parents=True, exist_ok=True)
    with (folder / STAGING / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchInterrupted(
                f"Another process fetches into {folder}. Wait until it is done, or end it."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield Staging(folder)
