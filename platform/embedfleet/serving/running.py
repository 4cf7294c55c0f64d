"""Which applications have a running replica, as Serve's controller knows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from embedfleet.errors import Unavailable

__all__ = ["KEPT_SECONDS", "Ask", "RunningApplications", "ask_serve"]

Ask = Callable[[], frozenset[str]]
"""Names the applications with a running replica; blocks."""

PATIENCE_SECONDS: Final = 2.0
"""Longest time that callers wait for one answer of the controller."""

KEPT_SECONDS: Final = 60.0
"""For so long an answer stands in for later ones that fail: replicas serve on while the controller
restarts, and a health check that failed meanwhile would take a fleet out that answers."""

_FRESH_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class RunningApplications:
    """A view of Serve's state that every caller shares.

    The controller also scales and checks health, so it is asked at most once a second, however many
    watch; and off the event loop, because its client blocks, for ever where the controller is gone.

    Args:
        ask: Asks the controller.
        clock: Gives the time in seconds.
        patience_seconds: Longest wait for one answer.
    """

    def __init__(
        self,
        ask: Ask,
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._patience_seconds = patience_seconds
        # Its own: an ask that hangs must not take a thread that others wait for.
        self._thread = ThreadPoolExecutor(1, "serve-status")
        self._asked: asyncio.Future[frozenset[str]] | None = None
        self._asked_at = 0.0
        self._known: tuple[frozenset[str], float] | None = None

    async def get(self) -> frozenset[str]:
        """Name the applications with at least one running replica.

        Raises:
            Unavailable: The controller does not answer, and has not for a while.
        """
        asked = self._latest()
        left = self._asked_at + self._patience_seconds - self._clock()
        try:
            async with asyncio.timeout(max(left, 0.0)):
                # One caller's cancellation must not cancel the answer for the others.
                return await asyncio.shield(asked)
        except (RayError, RayServeException, TimeoutError) as error:
            return self._last_known(error)

    def _latest(self) -> asyncio.Future[frozenset[str]]:
        """Ask anew where the last answer is old; never while an ask is unfinished."""
        asked, now = self._asked, self._clock()
        if asked is None or (asked.done() and now - self._asked_at > _FRESH_SECONDS):
            asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
            asked.add_done_callback(self._note)
            self._asked, self._asked_at = asked, now
        return asked

    def _note(self, asked: asyncio.Future[frozenset[str]]) -> None:
        if asked.cancelled():
            return
        if (error := asked.exception()) is None:
            self._known = asked.result(), self._clock()
        else:
            _log.warning("Serve's controller gives no answer: %s: %s", type(error).__name__, error)

    def _last_known(self, error: Exception) -> frozenset[str]:
        if self._known is not None:
            applications, known_at = self._known
            if self._clock() - known_at <= KEPT_SECONDS:
                return applications
        raise Unavailable(
            f"Which models run is not known now: Serve's controller gives no answer "
            f"({type(error).__name__}), as while it restarts. Try again shortly.",
            retry_after_seconds=1.0,
        ) from error


def ask_serve() -> frozenset[str]:
    """Ask Serve's controller; to be called in a process of Serve's.

    Raises:
        RayError: It is gone or restarts.
        RayServeException: It is not found.
    """
    applications = serve.status().applications
    if not applications:
        # What asks is itself an application: without a controller Serve tells of none.
        raise RayServeException("Serve tells of no application at all.")
    return frozenset(
        name
        for name, application in applications.items()
        if any(d.replica_states.get("RUNNING", 0) > 0 for d in application.deployments.values())
    )
