"""The memory of a pod, counted and limited by the kernel, where control groups can be made.

Both versions of control groups count what a group's processes were given since they joined it, so a
container joins before it starts anything.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "missing", "sweep"]

_ROOT = Path("/sys/fs/cgroup")
_FIRST = _ROOT / "memory"
"""Version 1 has a tree for each controller."""
_NAMES = {
    True: ("memory.usage_in_bytes", "memory.limit_in_bytes", "-1"),
    False: ("memory.current", "memory.max", "max"),
}


@dataclass(frozen=True)
class Memory:
    """The control group of one pod.

    Attributes:
        name: `ef` and the process that owns the network, then the pod's number.
    """

    name: str

    @property
    def members(self) -> Path:
        """Where a process writes 0 to join; what it starts then joins with it."""
        return self._folder / "cgroup.procs"

    def make(self) -> None:
        """Make the group, or nothing where that is not possible."""
        if not missing():
            self._folder.mkdir(exist_ok=True)

    def remove(self) -> None:
        """Remove it; its processes are gone."""
        with suppress(OSError):
            self._folder.rmdir()

    def limit(self, more_bytes: int | None) -> None:
        """Allow so much more than is used now; any amount for None."""
        used, limit, unlimited = _NAMES[_FIRST.is_dir()]
        if more_bytes is None:
            (self._folder / limit).write_text(unlimited)
        else:
            bound = int((self._folder / used).read_text()) + more_bytes
            (self._folder / limit).write_text(str(bound))

    @property
    def _folder(self) -> Path:
        return (_FIRST if _FIRST.is_dir() else _ROOT) / self.name


def missing() -> str:
    """Say why no memory can be counted here; empty where it can."""
    if not _FIRST.is_dir():
        delegated = _ROOT / "cgroup.subtree_control"
        if not delegated.is_file() or "memory" not in delegated.read_text().split():
            return "no control groups for memory"
    writable = os.access(_FIRST if _FIRST.is_dir() else _ROOT, os.W_OK)
    return "" if writable else "control groups cannot be made"


def sweep() -> None:
    """Remove the groups that processes left that no longer run."""
    for folder in (_FIRST if _FIRST.is_dir() else _ROOT).glob("ef*-*"):
        owner = folder.name.removeprefix("ef").partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError):
                folder.rmdir()
