"""Which waiting sequences run next, and why: a function of values and a passed-in `now`.

Two lanes: interactive runs before bulk, except that bulk is owed a step after a few interactive
ones. Inside a lane the most urgent goes first and always runs; the rest of the budget is filled in
order, skipping what does not fit. A bulk step may grow beyond its budget around a long shared
prefix, so that this is computed for many sequences and not for each anew. Urgency is shortest job
first with linear ageing: a request's turn comes once it has waited as long as it would take alone,
so nothing submitted after that can overtake it and nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

from embedfleet.messages import Priority

__all__ = ["BatchPlan", "Limits", "Pending", "Waiting", "cost", "lane", "plan", "urgency"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batcher; all can change under traffic.

    Attributes:
        max_batch_tokens: Tokens of one bulk step, shared prefixes counted once; twice the tokens
            of a shared prefix where that is more.
        max_interactive_tokens: Tokens of one interactive step, and of a request that may wait in
            the interactive lane: it bounds what one query can hold up for the next.
        max_queued_tokens: Tokens that may wait, a shared prefix counted in every step of its own.
        max_queued_items: Sequences that may wait.
        max_interactive_streak: Interactive steps in a row while bulk waits.
        max_skipped: Misfits looked past when filling a step; bounds the time that planning takes.
        max_failures: Failed steps in a row after which the engine counts as broken.
        stuck_after_seconds: Longest time between two signs of life of a running step.
    """

    max_batch_tokens: int
    max_interactive_tokens: int
    max_queued_tokens: int
    max_queued_items: int
    max_interactive_streak: int = 8
    max_skipped: int = 128
    max_failures: int = 3
    stuck_after_seconds: float = 120.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(
                    f"{field.name} is {value}: it must be above 0. Set a larger value."
                )

    def step_tokens(self, priority: Priority, prefix_tokens: int = 0) -> int:
        """Bound a step of this lane whose sequences share a prefix of so many tokens.

        Beside a prefix there is room for as many tokens again: computing it once a step then costs
        about as much as the rest of the step. An interactive request fits one step as it is.
        """
        if priority is Priority.INTERACTIVE:
            return self.max_interactive_tokens
        return max(self.max_batch_tokens, 2 * prefix_tokens)


class Pending(NamedTuple):
    """One waiting sequence as the planner sees it.

    Attributes:
        request: Serial number of the request it belongs to.
        position: Place in that request, from 0.
        num_tokens: Tokens computed for it, without its prefix.
        deadline: Seconds on the clock of `now`; infinity for none.
        prefix: Equal for sequences that share a prefix; None for none.
        prefix_tokens: Tokens of that prefix, computed once a batch.
    """

    request: int
    position: int
    num_tokens: int
    deadline: float = float("inf")
    prefix: bytes | None = None
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What may run, each lane with the most urgent first.

    Attributes:
        streak: Interactive steps run in a row while bulk waited.
    """

    interactive: Iterable[Pending] = ()
    bulk: Iterable[Pending] = ()
    streak: int = 0


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The next step.

    Attributes:
        priority: The lane it was taken from; None when nothing waits.
        run: In order of urgency.
        expired: Met on the way with a deadline already past: never run.
        streak: What to pass as `Waiting.streak` next time.
        reasons: Why these, for logs and test failures.
    """

    priority: Priority | None
    run: tuple[Pending, ...]
    expired: tuple[Pending, ...]
    streak: int
    reasons: tuple[str, ...]


def lane(priority: Priority, num_tokens: int, limits: Limits) -> Priority:
    """Choose the queue by cost: a request too long to overtake others waits as bulk."""
    return Priority.BULK if num_tokens > limits.max_interactive_tokens else priority


def cost(num_sequences: int, num_tokens: int, prefix_tokens: int, room: int) -> int:
    """Count the tokens computed for a request: its sequences', and its prefix's in every step.

    How many steps is told as if all sequences were of their average length.

    Args:
        num_sequences: That wait to be computed.
        num_tokens: Of these sequences together, without their prefix.
        prefix_tokens: Of the prefix that they share, 0 for none.
        room: Tokens beside the prefix in one step.
    """
    if not prefix_tokens or not num_sequences:
        return num_tokens
    sequences_a_step = max(1, room * num_sequences // num_tokens)
    return num_tokens + prefix_tokens * -(-num_sequences // sequences_a_step)


def urgency(
    submitted_at: float, deadline: float, num_tokens: int, tokens_per_second: float | None
) -> float:
    """Say when a request's turn comes, in seconds on the callers' clock; less is more urgent.

    Args:
        submitted_at: Start of its wait.
        deadline: Infinity for none.
        num_tokens: Cost of the whole request.
        tokens_per_second: Measured speed; None orders by age alone.
    """
    alone = num_tokens / tokens_per_second if tokens_per_second else 0.0
    return min(deadline, submitted_at + alone)


def plan(waiting: Waiting, limits: Limits, now: float) -> BatchPlan:
    """Decide the next step.

    Time grows with the sequences taken and at most `max_skipped` misfits, not with the queue.
    """
    owed = waiting.streak >= limits.max_interactive_streak
    lanes = [(Priority.INTERACTIVE, waiting.interactive), (Priority.BULK, waiting.bulk)]
    expired: list[Pending] = []
    for priority, pending in reversed(lanes) if owed else lanes:
        run, reason = _fill(priority, pending, limits, now, expired)
        if run:
            bulk = priority is Priority.BULK
            order = f"bulk owed after {waiting.streak} interactive steps" if bulk and owed else ""
            reasons = tuple(text for text in (order, f"{priority}: {reason}") if text)
            streak = 0 if bulk else waiting.streak + 1
            return BatchPlan(priority, tuple(run), tuple(expired), streak, reasons)
    return BatchPlan(None, (), tuple(expired), waiting.streak, ("nothing waits",))


def _fill(
    priority: Priority,
    pending: Iterable[Pending],
    limits: Limits,
    now: float,
    expired: list[Pending],
) -> tuple[list[Pending], str]:
    run: list[Pending] = []
    budget = full = limits.step_tokens(priority)
    # Prefixes in the step, each with the tokens that the step may grow to around it.
    bounds: dict[bytes | None, int] = {None: budget}
    taken = skipped = 0
    for item in pending:
        if item.deadline <= now:
            expired.append(item)
            continue
        tokens, bound = item.num_tokens, bounds.get(item.prefix)
        if bound is None:
            tokens += item.prefix_tokens
        # Beyond the budget goes only what continues a prefix that the step computes anyway. The
        # most urgent always runs, alone if it is over the whole budget: nothing starves.
        if taken + tokens > (bound or budget) and run:
            skipped += 1
            if skipped >= limits.max_skipped:
                break
            continue
        run.append(item)
        taken += tokens
        if bound is None:
            bounds[item.prefix] = limits.step_tokens(priority, item.prefix_tokens)
            full = max(full, bounds[item.prefix])
        if taken >= full:
            break
    return run, f"{len(run)} by urgency, {taken} of {full} tokens, {skipped} did not fit"
