"""Which of a replica's threads the operating system runs first when cores are short."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

__all__ = ["give_way"]

BULK_NICENESS: Final = 10
"""Leaves bulk a tenth of a core that interactive work could fill, so that it always goes on."""


def give_way() -> None:
    """Let interactive work of this machine go before what this thread does from now on.

    Threads that it starts later do the same. Only Linux knows niceness of threads; there is no way
    back without privileges.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + BULK_NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, niceness)  # beyond the last the last is taken
