"""The batcher's state: who waits, what was prepared ahead, how fast steps run.

Synchronous and without threads, so that its behaviour can be stepped through with a made-up clock.
Not thread-safe: every method is called under the batcher's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from operator import attrgetter
from typing import Final

import numpy as np

from embedfleet.batching.admission import Demand, QueueState, admit
from embedfleet.batching.lanes import Lane, Request, Work
from embedfleet.batching.planner import (
    BatchPlan,
    Limits,
    Pending,
    Waiting,
    cost,
    lane,
    plan,
    urgency,
)
from embedfleet.batching.steps import Outcome, Step
from embedfleet.batching.throughput import Throughput
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import Float32Array, Priority

__all__ = ["BOTH_LANES", "Lanes", "Schedule", "Submitted"]

Lanes = tuple[Priority, ...]
BOTH_LANES: Final[Lanes] = (Priority.INTERACTIVE, Priority.BULK)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one request.

    Attributes:
        rows: (n, ...) float32 in the order of the sequences, zeros where `errors` has an entry;
            (n, 0) if no sequence has a row.
        errors: Why a sequence has no row, by its position.
        queue_seconds: Time not computing, waits between steps included.
        compute_seconds: Time of the steps that held its sequences.
    """

    rows: Float32Array
    errors: dict[int, EmbedfleetError]
    queue_seconds: float
    compute_seconds: float


class Schedule:
    """Requests from admission to result."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.interactive = Lane()
        self.bulk = Lane()
        self.throughput = Throughput()
        self.requests: dict[int, Request] = {}
        self.running_tokens = 0
        self._expired: list[Request] = []
        self._prepared: Step | None = None
        self._serials = count()
        self._streak = 0

    @property
    def num_items(self) -> int:
        """Sequences that wait."""
        ahead = len(self._prepared.parts) if self._prepared else 0
        return self.interactive.num_items + self.bulk.num_items + ahead

    @property
    def num_tokens(self) -> int:
        """Tokens that wait."""
        return self.interactive.num_tokens + self.bulk.num_tokens + self._prepared_tokens

    @property
    def _prepared_tokens(self) -> int:
        return self._prepared.num_tokens if self._prepared else 0

    def reconfigure(self, limits: Limits) -> None:
        """Plan with other limits from the next step on; what waits stays admitted."""
        self._unprepare()
        self.limits = limits

    def add(self, work: Work) -> Request:
        """Queue a request.

        Raises:
            Overloaded: No room, or no chance before the deadline; says when to retry.
            TooLarge: It could never fit the queue.
            DeadlineExceeded: The deadline is already past.
        """
        request = self._request(work)
        demand = Demand(len(work.sequences), request.num_tokens, work.deadline)
        refusal = admit(demand, self._state(request), self.limits, work.submitted_at)
        if refusal is not None:
            raise refusal
        self.requests[request.serial] = request
        self._lane(request).add(request)
        return request

    def withdraw(self, request: Request) -> None:
        """Forget a request: its caller is gone or was answered."""
        if request.done:
            return
        request.done = True
        del self.requests[request.serial]
        if request.waiting:
            self._lane(request).remove(request)
            request.waiting = []
        if self._prepared and any(request is other for other, _ in self._prepared.parts):
            self._unprepare()

    def take_expired(self) -> list[Request]:
        """Return the requests that planning has dropped since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def next_step(self, now: float, lanes: Lanes = BOTH_LANES) -> Step | None:
        """Take the next step of these lanes, or None when nothing waits there."""
        if not (self.interactive or self.bulk or self._prepared):
            self._streak = 0
            return None
        decided = self._decide(lanes, now)
        self._streak = decided.streak if self.bulk or self._prepared else 0
        if decided.priority is Priority.BULK and self._prepared:
            step, self._prepared = self._prepared, None
            return step
        return self._take(decided)

    def next_interactive(self, now: float) -> Step | None:
        """Take a step that may run inside a bulk step, or None."""
        return self._take(self._decide((Priority.INTERACTIVE,), now))

    def prepare(self, now: float) -> Step | None:
        """Choose the next bulk step early, unless waiting might still fill it better."""
        if self._prepared or self.bulk.num_tokens < self.limits.max_batch_tokens:
            return None
        self._prepared = self._take(self._decide((Priority.BULK,), now))
        return self._prepared

    def restore(self, step: Step) -> None:
        """Put back what was taken but not run."""
        for request, items in _by_request(step):
            if not request.done:
                self._lane(request).restore(request, [pending for _, pending in items])

    def settle(
        self, results: Sequence[Outcome], seconds: float, now: float
    ) -> list[tuple[int, Submitted]]:
        """Note a finished step's results; return the requests that this completes."""
        touched: dict[int, Request] = {}
        computed = 0
        for step, result in results:
            computed += 0 if isinstance(result, EmbedfleetError) else step.num_tokens
            for request, items in _by_request(step):
                if request.done:
                    continue
                positions = [pending.position for _, pending in items]
                if isinstance(result, EmbedfleetError):
                    request.fail(positions, result)
                elif len(items) == 1:
                    row = items[0][0]
                    request.store(positions, result[row : row + 1])
                else:
                    request.store(positions, result[[row for row, _ in items]])
                touched[request.serial] = request
        if computed:
            self.throughput.add(computed, seconds)
        completed = []
        for request in touched.values():
            request.compute_seconds += seconds
            if request.unfinished == 0:
                self.withdraw(request)
                completed.append((request.serial, _submitted(request, now)))
        return completed

    def _request(self, work: Work) -> Request:
        prefix = None if work.prefix is None else work.prefix.tobytes()
        prefix_tokens = 0 if work.prefix is None else len(work.prefix)
        serial = next(self._serials)
        waiting = [
            Pending(serial, position, len(sequence), work.deadline, prefix, prefix_tokens)
            for position, sequence in enumerate(work.sequences)
        ]
        own_tokens = sum(pending.num_tokens for pending in waiting)
        room = self.limits.step_tokens(Priority.BULK, prefix_tokens) - prefix_tokens
        num_tokens = cost(len(waiting), own_tokens, prefix_tokens, room)
        if len(waiting) > 1:
            waiting.sort(key=attrgetter("num_tokens"), reverse=True)
        speed = self.throughput.tokens_per_second
        return Request(
            serial=serial,
            work=work,
            priority=lane(work.priority, num_tokens, self.limits),
            urgency=urgency(work.submitted_at, work.deadline, num_tokens, speed),
            num_tokens=num_tokens,
            room=room,
            waiting=waiting,
            own_tokens=own_tokens,
            waiting_tokens=num_tokens,
            unfinished=len(waiting),
        )

    def _state(self, request: Request) -> QueueState:
        speed = self.throughput.tokens_per_second
        ahead = self.num_tokens + self.running_tokens
        slack = request.work.deadline - request.work.submitted_at
        # Counting who is really ahead takes longer the more wait: only where it can matter.
        if speed is not None and ahead > slack * speed:
            ahead = self.interactive.tokens_before(request.urgency)
            if request.priority is Priority.BULK:
                ahead = self.interactive.num_tokens + self.running_tokens + self._prepared_tokens
                ahead += self.bulk.tokens_before(request.urgency)
        return QueueState(self.num_items, self.num_tokens, ahead, speed)

    def _lane(self, request: Request) -> Lane:
        return self.bulk if request.priority is Priority.BULK else self.interactive

    def _decide(self, lanes: Lanes, now: float) -> BatchPlan:
        while True:
            interactive = self.interactive.pending if Priority.INTERACTIVE in lanes else ()
            bulk = self._bulk_pending() if Priority.BULK in lanes else ()
            decided = plan(Waiting(interactive, bulk, self._streak), self.limits, now)
            if not decided.expired:
                return decided
            for serial in {pending.request for pending in decided.expired}:
                request = self.requests[serial]
                self.withdraw(request)
                self._expired.append(request)

    def _bulk_pending(self) -> Iterable[Pending]:
        if self._prepared:
            return [pending for _, pending in self._prepared.parts]
        return self.bulk.pending

    def _take(self, decided: BatchPlan) -> Step | None:
        if decided.priority is None:
            return None
        parts = [(self.requests[pending.request], pending) for pending in decided.run]
        step = Step(decided.priority, parts)
        for request, items in _by_request(step):
            self._lane(request).take(request, [pending for _, pending in items])
        return step

    def _unprepare(self) -> None:
        step, self._prepared = self._prepared, None
        if step:
            self.restore(step)


def _by_request(step: Step) -> Iterator[tuple[Request, list[tuple[int, Pending]]]]:
    """Group a step's sequences, each with its row in the result."""
    if len(step.parts) == 1:
        request, pending = step.parts[0]
        yield request, [(0, pending)]
        return
    numbered = [(request, (row, pending)) for row, (request, pending) in enumerate(step.parts)]
    numbered.sort(key=lambda entry: entry[0].serial)
    for _, group in groupby(numbered, key=lambda entry: entry[0].serial):
        entries = list(group)
        yield entries[0][0], [item for _, item in entries]


def _submitted(request: Request, now: float) -> Submitted:
    rows = request.rows
    if rows is None:
        rows = np.zeros((len(request.work.sequences), 0), np.float32)
    waited = now - request.work.submitted_at - request.compute_seconds
    return Submitted(rows, request.errors, max(waited, 0.0), request.compute_seconds)
