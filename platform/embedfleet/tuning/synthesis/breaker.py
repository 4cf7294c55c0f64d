"""Stops a run whose endpoint fails again and again, before it costs time or money for nothing."""

from __future__ import annotations

from embedfleet.errors import EndpointFailed
from embedfleet.tuning.synthesis.replies import sentence

__all__ = ["Breaker"]


class Breaker:
    """Counts failures since the last usable answer.

    Requests that are in flight together fail together when an endpoint goes away for a moment. So
    of failures that another try may mend, only those count whose request was sent after the last
    one that counted. Answers that cannot be used cost money, and each one counts.
    """

    def __init__(self, limit: int) -> None:
        self.failures = 0
        self._limit = limit
        self._counted_at = float("-inf")

    def succeeded(self) -> None:
        """Take note of a usable answer."""
        self.failures = 0

    def failed(self, sent_at: float, now: float) -> bool:
        """Take note of a failure of which another try may be free; tell whether it counts."""
        if sent_at < self._counted_at:
            return False
        self._counted_at = now
        self.failures += 1
        return True

    def spoiled(self) -> None:
        """Take note of an answer that cannot be used."""
        self.failures += 1

    def check(self, said: str) -> None:
        """Refuse to go on after too many.

        Args:
            said: The last failure, as the endpoint told it.

        Raises:
            EndpointFailed: The limit is reached.
        """
        if self.failures >= self._limit:
            raise EndpointFailed(
                f"The endpoint failed {self.failures} times in a row, and "
                f"endpoint.maxConsecutiveFailures is {self._limit}. It said last: {sentence(said)} "
                "Every answer so far is kept; mend the endpoint and run the same command again.",
                field="endpoint",
            )
