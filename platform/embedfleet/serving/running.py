"""Which applications have a running replica, as Serve's controller knows it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ray import serve

__all__ = ["RunningApplications"]

_FRESH_SECONDS: Final = 1.0


class RunningApplications:
    """A view of Serve's state that every caller shares.

    The controller also scales and checks health, so it is asked at most once a second, however many
    watch; and off the event loop, because its client blocks.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Task[frozenset[str]] | None = None
        self._asked_at = 0.0

    async def get(self) -> frozenset[str]:
        """Name the applications with at least one running replica."""
        now = time.monotonic()
        if self._asked is None or now - self._asked_at > _FRESH_SECONDS:
            self._asked_at = now
            self._asked = asyncio.create_task(asyncio.to_thread(_ask))
        # One caller's cancellation must not cancel the answer for the others.
        return await asyncio.shield(self._asked)


def _ask() -> frozenset[str]:
    return frozenset(
        name
        for name, application in serve.status().applications.items()
        if any(d.replica_states.get("RUNNING", 0) > 0 for d in application.deployments.values())
    )
