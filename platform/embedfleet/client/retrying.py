"""Decides whether a failed request is tried again, and when: a function of values.

Exponential backoff with jitter, unless the server says when to come back (google.rpc.RetryInfo).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from embedfleet.errors import DeadlineExceeded, EmbedfleetError

__all__ = ["READY_POLL_SECONDS", "Deadline", "retry_delay"]

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
READY_POLL_SECONDS = 0.2
ATTEMPT_SHARE = 0.75
"""Of the time left, what one attempt may take: nodes that lose their power or their network say
nothing, and a call that waits for one of them needs time to be made again elsewhere."""
MIN_ATTEMPT_SECONDS = 5.0
"""A time is not divided into less: in so short a one an answer is late, not lost."""
TRY_SMALLER = "Give it a larger timeout, or send fewer items in one call."


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a call must be over, on the monotonic clock.

    Attributes:
        timeout_seconds: What the caller asked for, to name it when it has passed.
    """

    at_seconds: float
    timeout_seconds: float

    @classmethod
    def after(cls, timeout_seconds: float) -> Deadline:
        """Start the clock now."""
        return cls(time.monotonic() + timeout_seconds, timeout_seconds)

    def left(self) -> float:
        """Seconds left, negative when it has passed."""
        return self.at_seconds - time.monotonic()

    def remaining(self) -> float:
        """Seconds left; raises DeadlineExceeded when there are none."""
        seconds = self.left()
        if seconds <= 0:
            raise self.exceeded()
        return seconds

    def attempt(self) -> float:
        """Seconds for the next attempt; raises DeadlineExceeded when there are none."""
        seconds = self.remaining()
        share = ATTEMPT_SHARE * seconds
        return share if share >= MIN_ATTEMPT_SECONDS else seconds

    def spares(self) -> bool:
        """Whether an attempt that ran out of time was one that had to leave some for another."""
        return self.left() >= MIN_ATTEMPT_SECONDS * (1 - ATTEMPT_SHARE)

    def exceeded(self, next_move: str = TRY_SMALLER) -> DeadlineExceeded:
        """Build the error that names the timeout and what to do."""
        return DeadlineExceeded(
            f"timeout is {self.timeout_seconds:g} s and it has passed. {next_move}",
            field="timeout",
        )


def retry_delay(
    error: EmbedfleetError, attempt: int, max_attempts: int, jitter: float
) -> float | None:
    """Give the seconds to wait before the next attempt, or None to give up.

    Args:
        error: What the last attempt met.
        attempt: Number of the attempt that failed, from 1.
        max_attempts: Bound for failures without a hint; hints are followed to the deadline.
        jitter: Uniform in [0, 1), so that many clients do not come back at once.
    """
    if not error.retryable:
        return None
    backoff: float = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (min(attempt, 30) - 1))
    if error.retry_after_seconds is not None:
        # Never earlier than asked, at most a quarter later; and a hint that proved too short grows.
        return max(error.retry_after_seconds, backoff) * (1 + jitter / 4)
    if attempt >= max_attempts:
        return None
    return backoff * (0.5 + jitter / 2)
