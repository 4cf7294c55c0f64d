"""Keys waiting to be worked on: each once, one worker a key, later again if it failed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["WorkQueue"]

K = TypeVar("K", bound=Hashable)

_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 60.0


class WorkQueue(Generic[K]):
    """Runs work for each key that was added, a few at once and never two for one key.

    A key that is added while it is worked on is worked on once more: nothing that happened
    meanwhile is missed.

    Args:
        work: Does it, and returns after how many seconds the key is due again; None for never.
        failed: Told of each failure.
        settle_seconds: What is added waits so long for more of the same.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        failed: Callable[[K, Exception], None],
        settle_seconds: float = 0.1,
    ) -> None:
        self._work = work
        self._failed = failed
        self._settle = settle_seconds
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._queued: set[K] = set()
        self._running: dict[K, bool] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Count the keys that wait for a worker."""
        return len(self._queued)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs, timers apart."""
        return not self._queued and not self._running

    def add(self, key: K, after_seconds: float | None = None) -> None:
        """Have a key worked on soon, or after some time unless it is due before."""
        if key in self._running:
            if after_seconds is None:
                self._running[key] = True
            return
        if key in self._queued:
            return
        delay = self._settle if after_seconds is None else after_seconds
        loop = asyncio.get_running_loop()
        waiting = self._timers.get(key)
        if waiting is not None:
            if waiting.when() <= loop.time() + delay:
                return
            waiting.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    async def run(self) -> None:
        """Work for ever; run as many of these as may work at once."""
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._running[key] = False
            after: float | None = None
            try:
                after = await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:
                self._failed(key, error)
                after = self._retry_after(key)
            finally:
                again = self._running.pop(key)
            if again:
                self.add(key)
            elif after is not None:
                self.add(key, after)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self._queued.add(key)
        self._ready.put_nowait(key)

    def _retry_after(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)
