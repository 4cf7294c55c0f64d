"""The asyncio shell: callers await their rows, threads run the engine.

A thread takes its next step from the shared schedule itself, so a step costs one wake-up and one
call back into the loop, with all its results. Where the engine does one thing at a time, as on a
GPU, one thread runs everything: while a bulk step runs, the engine's yield point lets waiting
interactive work run between two layers, one short step at a time so that bulk goes on too. Where it
can do two, as on a CPU, each lane has a thread, and the operating system lets the interactive one
go first. Decides nothing about order or admission and knows nothing of texts, prompts or what a row
means.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from embedfleet.batching.health import Health, first_problem
from embedfleet.batching.lanes import Request, Work
from embedfleet.batching.niceness import give_way
from embedfleet.batching.planner import Limits
from embedfleet.batching.schedule import BOTH_LANES, Lanes, Schedule, Submitted
from embedfleet.batching.stats import Counters, Stats, snapshot
from embedfleet.batching.steps import Outcome, Run, Step, StepAbandoned, YieldPoint, outcomes
from embedfleet.errors import (
    DeadlineExceeded,
    EmbedfleetError,
    OutOfMemory,
    Unavailable,
)
from embedfleet.messages import Priority, TokenIds

__all__ = ["Batcher"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    """One of the engine's threads: the lanes whose steps it runs, and what wakes it."""

    lanes: Lanes
    wanted: threading.Condition
    health: Health


class Batcher:
    """Turns many callers' sequences into few engine calls.

    All methods belong to the event loop that called `start`.

    Args:
        run: The engine's operation.
        limits: Bounds that `reconfigure` can change.
        name: Of the model, for logs and errors.
        parallel: `run` may be called from two threads at a time. Otherwise calls come from one, but
            nested in yield points.
    """

    def __init__(self, run: Run, limits: Limits, *, name: str, parallel: bool = False) -> None:
        self._run = run
        self._name = name
        self._schedule = Schedule(limits)
        self._lock = threading.Lock()  # guards _schedule, _counters and _closing
        shares: list[Lanes] = [(each,) for each in BOTH_LANES] if parallel else [BOTH_LANES]
        self._workers = [
            _Worker(lanes, threading.Condition(self._lock), Health(name)) for lanes in shares
        ]
        self._healths = [each.health for each in self._workers]
        self._threads: list[threading.Thread] = []
        self._futures: dict[int, asyncio.Future[Submitted]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._closing = False
        self._counters = Counters()

    def start(self) -> None:
        """Start the engine's threads; results are delivered to the running loop."""
        self._loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.health.started()
            thread = threading.Thread(
                target=self._main, args=(worker,), name=f"engine-{self._name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    async def close(self, *, drain: bool = True) -> None:
        """Refuse new work, finish or drop what waits, and end the threads.

        Args:
            drain: Finish what was admitted. Otherwise its callers get Unavailable, and a running
                bulk step stops at its next layer.
        """
        if self._loop is None:
            return
        self._shut(drop=not drain)
        await self._stopped.wait()
        for thread in self._threads:
            thread.join()

    async def submit(
        self,
        sequences: Sequence[TokenIds],
        *,
        prefix: TokenIds | None = None,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Submitted:
        """Compute one row a sequence.

        Cancelling the call drops what has not run.

        Args:
            sequences: At least one, none empty.
            prefix: Token ids that every sequence continues, computed once a step.
            priority: A long interactive request waits as bulk, ahead of longer ones.
            deadline: Seconds on the monotonic clock, which is the loop's.

        Raises:
            Overloaded: The queue is full or the deadline cannot be met; says when to retry.
            TooLarge: The request could never fit the queue.
            DeadlineExceeded: The deadline passed first.
            Unavailable: The batcher is closed, or its engine is broken: retry on another replica.
            ValueError: Nothing to compute, which is a bug.
        """
        segments = sequences if prefix is None else [prefix, *sequences]
        if not len(sequences) or not all(map(len, segments)):
            raise ValueError("This is a bug: a request needs sequences, and none may be empty.")
        until = float("inf") if deadline is None else deadline
        # The future first: once a thread is woken, both sides want the interpreter.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Submitted] = loop.create_future()
        request = self._admit(Work(sequences, prefix, priority, monotonic(), until))
        self._futures[request.serial] = future
        timer = None
        if deadline is not None:
            timer = loop.call_later(deadline - monotonic(), self._expire, request)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if self._futures.pop(request.serial, None) is not None:
                self._withdraw(request)

    def reconfigure(self, limits: Limits) -> None:
        """Use other limits from the next step on."""
        with self._lock:
            self._schedule.reconfigure(limits)

    def stats(self) -> Stats:
        """Count what waits, what runs and what was done."""
        with self._lock:
            return snapshot(self._schedule, self._counters, self._healths, monotonic())

    def check_health(self) -> None:
        """Raise if the engine cannot be trusted with more work.

        Raises:
            EngineError: A thread of it died, hangs, or fails step after step.
            Unavailable: Not started, or closed.
        """
        problem = self._problem()
        if problem is not None:
            raise problem

    # Loop side.

    def _admit(self, work: Work) -> Request:
        with self._lock:
            if self._closing or self._loop is None:
                raise self._closed()
            # The fastest to fail would draw the most work: send it away while health checks notice.
            broken = self._problem()
            if broken is not None:
                raise Unavailable(f"{broken.message} Retry on another replica.")
            request = self._schedule.add(work)
            for worker in self._workers:
                if request.priority in worker.lanes:
                    worker.wanted.notify()
        return request

    def _problem(self) -> EmbedfleetError | None:
        return first_problem(self._healths, monotonic(), self._schedule.limits)

    def _shut(self, *, drop: bool) -> None:
        """Take no more work, and drop what was admitted if asked."""
        with self._lock:
            self._closing = True
            doomed = list(self._schedule.requests.values()) if drop else []
            for request in doomed:
                self._schedule.withdraw(request)
            for worker in self._workers:
                worker.wanted.notify()
        for request in doomed:
            self._fail(request, self._closed())

    def _closed(self) -> Unavailable:
        deaths = (each.died() for each in self._healths)
        died = next((each for each in deaths if each is not None), None)
        state = "not started" if self._loop is None else "shutting down"
        cause = died.message if died else f"{self._name} is {state} and takes no work."
        return Unavailable(f"{cause} Retry on another replica.")

    def _withdraw(self, request: Request) -> None:
        with self._lock:
            self._schedule.withdraw(request)

    def _fail(self, request: Request, error: EmbedfleetError) -> None:
        future = self._futures.pop(request.serial, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def _expire(self, request: Request) -> None:
        self._withdraw(request)
        work = request.work
        done = len(work.sequences) - request.unfinished
        self._fail(
            request,
            DeadlineExceeded(
                f"The deadline passed {work.deadline - work.submitted_at:.2f} s after the request "
                f"was queued, with {done} of {len(work.sequences)} sequences computed. Allow more "
                f"time or send less at once."
            ),
        )

    def _deliver(self, completed: list[tuple[int, Submitted]]) -> None:
        for serial, submitted in completed:
            future = self._futures.pop(serial, None)
            if future is not None and not future.done():
                future.set_result(submitted)

    def _ended(self, why: str) -> None:
        """Run when a thread is gone; after the last, or a death, nothing may be left waiting."""
        last = not any(each.running for each in self._healths)
        if last or why:
            self._shut(drop=True)
        if last:
            self._stopped.set()

    # Engine side.

    def _main(self, worker: _Worker) -> None:
        why = ""
        try:
            if Priority.INTERACTIVE not in worker.lanes:
                give_way()
            while (step := self._next_step(worker)) is not None:
                self._execute(step, worker, partial(self._between_layers, step, worker))
                del step  # the thread may now sleep for hours
        except BaseException as cause:
            _log.critical("%s: the engine's thread died", self._name, exc_info=True)
            why = f"{type(cause).__name__}: {cause}"
        finally:
            worker.health.ended(why)
            self._post(self._ended, why)

    def _next_step(self, worker: _Worker) -> Step | None:
        with self._lock:
            while True:
                step = self._schedule.next_step(monotonic(), worker.lanes)
                self._post_expired()
                if step is not None or self._closing:
                    return step
                worker.wanted.wait()

    def _execute(
        self,
        step: Step,
        worker: _Worker,
        yield_point: YieldPoint | None,
        host: Step | None = None,
    ) -> None:
        """Run a step and deliver it; `host` is the bulk step that it runs inside of."""
        num_tokens = step.pack().num_tokens
        started = worker.health.alive(monotonic())
        with self._lock:
            overtakes = step.priority is Priority.INTERACTIVE and self._schedule.running_tokens > 0
            self._counters.preemptions += overtakes
            self._schedule.running_tokens += num_tokens
        results: list[Outcome] = []
        abandoned = False
        try:
            results.extend(outcomes(self._run, step, yield_point))
        except StepAbandoned:
            abandoned = True
        now = monotonic()
        if host is not None:
            results = self._postpone(results, host)
        seconds = now - started - step.nested_seconds
        with self._lock:
            self._schedule.running_tokens -= num_tokens
            completed = self._schedule.settle(results, seconds, now)
            self._counters.count(results, num_tokens, seconds)
            self._counters.abandoned += abandoned
        worker.health.step_ended(results, nested=host is not None)
        if completed:
            self._post(self._deliver, completed)

    def _between_layers(self, step: Step, worker: _Worker) -> None:
        worker.health.alive(monotonic())
        if step.priority is Priority.INTERACTIVE:
            return
        if step.abandoned:
            raise StepAbandoned
        nests = step.may_nest and Priority.INTERACTIVE in worker.lanes
        if nests and self._schedule.interactive:
            self._overtake(step, worker)
        with self._lock:
            ahead = self._schedule.prepare(monotonic())
            self._post_expired()
        if ahead is not None:
            ahead.pack()

    def _overtake(self, host: Step, worker: _Worker) -> None:
        """Run one interactive step inside a bulk step: one a layer, so that bulk goes on."""
        started = monotonic()
        with self._lock:
            step = self._schedule.next_interactive(started)
            self._post_expired()
        if step is not None:
            self._execute(step, worker, None, host)
            host.nested_seconds += monotonic() - started

    def _postpone(self, results: list[Outcome], host: Step) -> list[Outcome]:
        """Put back what found no memory beside the bulk step: it may well fit alone."""
        cramped = [part for part, result in results if isinstance(result, OutOfMemory)]
        if cramped:
            host.may_nest = False
            with self._lock:
                for part in cramped:
                    self._schedule.restore(part)
        return [(part, result) for part, result in results if part not in cramped]

    def _post_expired(self) -> None:
        for request in self._schedule.take_expired():
            self._post(self._expire, request)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _log.warning("%s: the event loop closed before its batcher did", self._name)
