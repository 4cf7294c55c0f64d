"""What is left of a fleet that did not start: its logs, where the message says."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from embedfleet.local.edge import LOG_FILE
from embedfleet.local.node import RAY_LOG_FILE

__all__ = ["keep_logs"]


def keep_logs(folder: Path, name: str) -> Path:
    """Copy a fleet's logs to a new temporary folder before its own goes."""
    kept = Path(tempfile.mkdtemp(prefix=f"embedfleet-failed-{name}-"))
    for file in (LOG_FILE, RAY_LOG_FILE):
        if (folder / file).exists():
            shutil.copy(folder / file, kept / file)
    session = folder / "ray" / "session_latest" / "logs"
    # Processes that still write may take a file away while it is copied.
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(session, kept / "ray", ignore_dangling_symlinks=True, symlinks=True)
    return kept
