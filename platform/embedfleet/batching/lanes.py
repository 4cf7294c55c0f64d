"""Requests and the lanes that they wait in, kept in order of urgency.

A request waits as one entry however many sequences it has, so that order costs little with tens of
thousands waiting. Not thread-safe: whoever holds a lane holds its lock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from embedfleet.batching.planner import Pending, cost
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import Float32Array, Priority, TokenIds

__all__ = ["Lane", "Request", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a caller asks for.

    Attributes:
        sequences: Token ids, prefix not included; none empty.
        prefix: Token ids that every sequence continues.
        submitted_at: Seconds on the monotonic clock, as is `deadline`; no deadline is infinity.
    """

    sequences: Sequence[TokenIds]
    prefix: TokenIds | None
    priority: Priority
    submitted_at: float
    deadline: float = float("inf")


@dataclass(slots=True, eq=False)
class Request:
    """One caller's work on its way through the batcher.

    Attributes:
        priority: The lane it waits in, which may differ from the one asked for.
        num_tokens: Cost of all of it, the prefix counted once a step.
        room: Tokens beside the prefix in one step.
        waiting: Sequences in no step yet, longest first: what is left over fills gaps best.
        own_tokens: Tokens of `waiting`, without the prefix.
        waiting_tokens: Cost of `waiting`, the prefix counted once a step.
        unfinished: Sequences without a result.
        rows: (n, ...) results so far; None before the first.
        done: Answered or given up: whatever a running step computes for it is thrown away.
    """

    serial: int
    work: Work
    priority: Priority
    urgency: float
    num_tokens: int
    room: int
    waiting: list[Pending]
    own_tokens: int
    waiting_tokens: int
    unfinished: int
    rows: Float32Array | None = None
    errors: dict[int, EmbedfleetError] = field(default_factory=dict)
    compute_seconds: float = 0.0
    done: bool = False

    @property
    def prefix_tokens(self) -> int:
        """Length of the shared prefix, 0 for none."""
        return 0 if self.work.prefix is None else len(self.work.prefix)

    def wait(self, waiting: list[Pending], own_tokens: int) -> None:
        """Let these sequences wait, longest first, and no others."""
        self.waiting, self.own_tokens = waiting, own_tokens
        self.waiting_tokens = cost(len(waiting), own_tokens, self.prefix_tokens, self.room)

    def store(self, positions: list[int], rows: Float32Array) -> None:
        """Keep the rows of some sequences, copied out of the step's array."""
        num_sequences = len(self.work.sequences)
        if num_sequences == 1:
            self.rows = rows.astype(np.float32)
        else:
            if self.rows is None:
                self.rows = np.zeros((num_sequences, *rows.shape[1:]), np.float32)
            self.rows[positions] = rows
        self.unfinished -= len(positions)

    def fail(self, positions: list[int], error: EmbedfleetError) -> None:
        """Keep why some sequences have no row."""
        self.errors.update(dict.fromkeys(positions, error))
        self.unfinished -= len(positions)


class Lane:
    """Requests of one priority with sequences left to plan."""

    def __init__(self) -> None:
        # Most urgent last: taking, which happens with the engine waiting, then moves little memory.
        self._entries: list[tuple[float, int, Request]] = []
        self.num_items = 0
        self.num_tokens = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def requests(self) -> Iterator[Request]:
        """Most urgent first."""
        return (request for _, _, request in reversed(self._entries))

    @property
    def pending(self) -> Iterator[Pending]:
        """Waiting sequences, most urgent first."""
        return chain.from_iterable(request.waiting for request in self.requests)

    def tokens_before(self, urgency: float) -> int:
        """Count the tokens of requests more urgent than that."""
        return sum(r.waiting_tokens for r in self.requests if r.urgency <= urgency)

    def add(self, request: Request) -> None:
        """Insert a request with waiting sequences."""
        insort(self._entries, (-request.urgency, -request.serial, request))
        self.num_items += len(request.waiting)
        self.num_tokens += request.waiting_tokens

    def remove(self, request: Request) -> None:
        """Take out a request that is in the lane."""
        entry = (-request.urgency, -request.serial, request)
        del self._entries[bisect_left(self._entries, entry)]
        self.num_items -= len(request.waiting)
        self.num_tokens -= request.waiting_tokens

    def take(self, request: Request, taken: Sequence[Pending]) -> None:
        """Take some of a request's sequences; the request leaves with its last one."""
        count = len(taken)
        if count == len(request.waiting):
            self.remove(request)
            request.wait([], 0)
            return
        left = request.waiting
        if left[count - 1] is taken[-1]:
            del left[:count]
        else:
            gone = {pending.position for pending in taken}
            left = [p for p in left if p.position not in gone]
        self.num_items -= count
        self.num_tokens -= request.waiting_tokens
        request.wait(left, request.own_tokens - sum(pending.num_tokens for pending in taken))
        self.num_tokens += request.waiting_tokens

    def restore(self, request: Request, items: Sequence[Pending]) -> None:
        """Put sequences back that were taken but not run."""
        if request.waiting:
            self.remove(request)
        waiting = sorted([*items, *request.waiting], key=lambda p: -p.num_tokens)
        request.wait(waiting, request.own_tokens + sum(pending.num_tokens for pending in items))
        self.add(request)
