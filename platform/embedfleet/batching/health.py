"""Whether an engine's threads live, move and succeed.

Written by the thread, read from the event loop: single assignments, no lock needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from embedfleet.batching.planner import Limits
from embedfleet.batching.steps import Outcome
from embedfleet.errors import (
    EmbedfleetError,
    EngineError,
    NonFiniteResult,
    OutOfMemory,
    Unavailable,
)

__all__ = ["Health", "first_problem"]


class Health:
    """Signs of life of one engine thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.running = False
        self._sign_of_life: float | None = None
        self.failures = 0
        self.last_error = ""
        self._dead = False

    def started(self) -> None:
        """Note that the thread starts."""
        self.running = True

    def ended(self, why: str) -> None:
        """Note that the thread ends: as told, or for a reason."""
        self.running, self._sign_of_life = False, None
        if why:
            self._dead, self.last_error = True, why

    def alive(self, now: float) -> float:
        """Note that a step began or reached its next layer."""
        self._sign_of_life = now
        return now

    def step_ended(self, results: Sequence[Outcome], *, nested: bool) -> None:
        """Count failures in a row: errors of the engine, not of one sequence or of memory."""
        if not nested:
            self._sign_of_life = None
        for _, result in results:
            if not isinstance(result, Exception):
                self.failures = 0
                continue
            self.last_error = str(result)
            if not isinstance(result, NonFiniteResult | OutOfMemory):
                self.failures += 1

    def died(self) -> EngineError | None:
        """Return why the thread is gone, if it was not told to end."""
        if not self._dead:
            return None
        return EngineError(
            f"{self._name}: the engine's thread died: {self.last_error}. Restart the replica."
        )

    def problem(self, now: float, limits: Limits) -> EmbedfleetError | None:
        """Return why the thread cannot be trusted with more work, or None."""
        if not self.running:
            return self.died() or Unavailable(
                f"{self._name} is not running. Start it, or use another replica."
            )
        if self.failures >= limits.max_failures:
            return EngineError(
                f"{self._name} failed {self.failures} steps in a row, {limits.max_failures} is the "
                f"limit; the last: {self.last_error} Restart the replica."
            )
        sign = self._sign_of_life
        if sign is not None and now - sign > limits.stuck_after_seconds:
            return EngineError(
                f"{self._name} gave no sign of life for {now - sign:.0f} s, "
                f"{limits.stuck_after_seconds:.0f} s is the limit. Restart the replica."
            )
        return None


def first_problem(healths: Sequence[Health], now: float, limits: Limits) -> EmbedfleetError | None:
    """Return why an engine cannot be trusted with more work, or None.

    Where one of its threads died the others end as they are told, which tells nothing.
    """
    problems = [
        *(each.died() for each in healths),
        *(each.problem(now, limits) for each in healths),
    ]
    return next((each for each in problems if each is not None), None)
