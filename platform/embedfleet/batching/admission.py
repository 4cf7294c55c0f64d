"""Whether a request may join the queue: one rule for a single sequence and for a batch.

All or nothing, decided before anything waits. A refusal says when a retry has a chance, from the
tokens in the way and the measured speed; what can never fit is told so instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedfleet.batching.planner import Limits
from embedfleet.errors import DeadlineExceeded, EmbedfleetError, Overloaded, TooLarge

__all__ = ["Demand", "QueueState", "admit"]

MIN_RETRY_SECONDS = 0.05
MAX_RETRY_SECONDS = 60.0
UNMEASURED_RETRY_SECONDS = 1.0  # before the first step there is no speed to compute with


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request costs and when it must be done; no deadline is infinity.

    Attributes:
        num_tokens: To compute, a shared prefix counted once a step.
    """

    num_items: int
    num_tokens: int
    deadline: float = float("inf")


@dataclass(frozen=True, slots=True)
class QueueState:
    """What already waits.

    Attributes:
        tokens_ahead: Tokens that will be computed before this request's first.
        tokens_per_second: Measured speed; None before the first step.
    """

    num_items: int
    num_tokens: int
    tokens_ahead: int
    tokens_per_second: float | None


def admit(demand: Demand, queue: QueueState, limits: Limits, now: float) -> EmbedfleetError | None:
    """Return why a request is refused, or None."""
    late = demand.deadline - now
    if late <= 0:
        return DeadlineExceeded(
            f"The deadline passed {-late:.3f} s before the request was queued. Allow more time."
        )
    for what, limit, asked, queued in (
        ("items", limits.max_queued_items, demand.num_items, queue.num_items),
        ("tokens", limits.max_queued_tokens, demand.num_tokens, queue.num_tokens),
    ):
        if asked > limit:
            return TooLarge(
                f"The request takes {asked:,} {what} of a queue that holds at most {limit:,}. "
                "Split it."
            )
        excess = queued + asked - limit
        if excess > 0:
            per_one = 1.0 if what == "tokens" else queue.num_tokens / max(queue.num_items, 1)
            return _overloaded(
                f"The queue holds {queued:,} of {limit:,} {what} and this request adds {asked:,}.",
                _seconds(excess * per_one, queue.tokens_per_second),
            )
    wait = _seconds(queue.tokens_ahead, queue.tokens_per_second)
    if wait is not None and wait > late:
        return _overloaded(
            f"The wait would be {wait:.2f} s for {queue.tokens_ahead:,} tokens and the deadline "
            f"leaves {late:.2f} s.",
            wait - late,
        )
    return None


def _seconds(num_tokens: float, tokens_per_second: float | None) -> float | None:
    return num_tokens / tokens_per_second if tokens_per_second else None


def _overloaded(why: str, seconds: float | None) -> Overloaded:
    hint = UNMEASURED_RETRY_SECONDS if seconds is None else seconds
    hint = min(max(hint, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)
    return Overloaded(f"{why} Retry in {hint:.2f} s, or add replicas.", retry_after_seconds=hint)
