"""What a batcher counts, as one value for autoscaling and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedfleet.batching.health import Health, first_problem
from embedfleet.batching.schedule import Schedule
from embedfleet.batching.steps import Outcome

__all__ = ["Counters", "Stats", "snapshot"]


@dataclass(slots=True)
class Counters:
    """Totals since the start, written under the batcher's lock.

    Attributes:
        steps: Engine calls that were planned; a step rerun in halves counts once.
        preemptions: Interactive steps run inside a bulk step, or beside one.
        abandoned: Bulk steps stopped because nobody waited for them any more.
        failed_sequences: Sequences that got an error instead of a row.
        compute_seconds: Time in the engine.
    """

    steps: int = 0
    preemptions: int = 0
    abandoned: int = 0
    sequences: int = 0
    failed_sequences: int = 0
    tokens: int = 0
    compute_seconds: float = 0.0

    def count(self, results: Sequence[Outcome], num_tokens: int, seconds: float) -> None:
        """Count one step."""
        self.steps += 1
        self.tokens += num_tokens
        self.compute_seconds += seconds
        for part, result in results:
            self.sequences += len(part.parts)
            if isinstance(result, Exception):
                self.failed_sequences += len(part.parts)


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment of a batcher.

    Attributes:
        tokens_per_second: Measured speed of recent steps; None before the first.
        oldest_wait_seconds: Age of the oldest request with sequences in no step yet.
        healthy: Whether a health check would pass.
    """

    queued_items: int
    queued_tokens: int
    running_tokens: int
    tokens_per_second: float | None
    oldest_wait_seconds: float
    healthy: bool
    last_error: str
    steps: int
    preemptions: int
    abandoned: int
    sequences: int
    failed_sequences: int
    tokens: int
    compute_seconds: float

    def autoscaling(self) -> dict[str, float]:
        """Give what says whether more replicas would help; a speed of 0 means not yet measured."""
        return {
            "queued_tokens": self.queued_tokens,
            "running_tokens": self.running_tokens,
            "tokens_per_second": self.tokens_per_second or 0.0,
            "oldest_wait_seconds": self.oldest_wait_seconds,
        }


def snapshot(
    schedule: Schedule, counters: Counters, healths: Sequence[Health], now: float
) -> Stats:
    """Read everything at one moment."""
    oldest = min(
        (r.work.submitted_at for r in schedule.requests.values() if r.waiting), default=now
    )
    return Stats(
        queued_items=schedule.num_items,
        queued_tokens=schedule.num_tokens,
        running_tokens=schedule.running_tokens,
        tokens_per_second=schedule.throughput.tokens_per_second,
        oldest_wait_seconds=now - oldest,
        healthy=first_problem(healths, now, schedule.limits) is None,
        last_error=next((each.last_error for each in healths if each.last_error), ""),
        steps=counters.steps,
        preemptions=counters.preemptions,
        abandoned=counters.abandoned,
        sequences=counters.sequences,
        failed_sequences=counters.failed_sequences,
        tokens=counters.tokens,
        compute_seconds=counters.compute_seconds,
    )
