"""What processes of a cluster use: resident memory, threads, open files, sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Usage", "resident_bytes", "usage"]

_SCRIPTS = (".py", "raylet", "gcs_server", "haproxy")


@dataclass(frozen=True)
class Usage:
    """What one process uses."""

    resident_bytes: int
    threads: int
    files: int
    sockets: int


def usage(node: int) -> Mapping[tuple[int, str], Usage]:
    """Measure every process of every container, by its number and what it is."""
    found = {}
    for process in _inside(node):
        # It may end while it is asked.
        with suppress(psutil.Error, OSError):
            with process.oneshot():
                name, threads = label(process), process.num_threads()
                resident = process.memory_info().rss
            targets = list(_open_files(process.pid))
            sockets = sum(each.startswith("socket:") for each in targets)
            found[process.pid, name] = Usage(resident, threads, len(targets) - sockets, sockets)
    return found


def resident_bytes(node: int, *words: str) -> int:
    """Add up the resident memory of processes whose labels hold one of these words."""
    return sum(
        each.resident_bytes
        for (_, name), each in usage(node).items()
        if any(word in name for word in words)
    )


def label(process: psutil.Process) -> str:
    """Say what a process is: its pod, and its title, script or program."""
    line = process.cmdline() or [process.name()]
    if line[0].startswith("ray::"):
        title = line[0].split()[0]
    else:
        scripts = (
            each for each in line if each.endswith(_SCRIPTS) or each.startswith("embedfleet_")
        )
        title = Path(next(scripts, line[0])).name
    return f"{process.environ().get('HOSTNAME', '')} {title}"


def _open_files(pid: int) -> Iterator[str]:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(each)


def _inside(node: int) -> Iterator[psutil.Process]:
    """Give what containers run, without what starts them."""
    for process in psutil.Process(node).children(recursive=True):
        with suppress(psutil.Error):
            if process.name() not in ("unshare", "nsenter", "setpriv", "sh", "sleep"):
                yield process
