"""The asyncio shell: callers await their rows, one thread runs the engine.

The thread takes its next step from the shared schedule itself, so a step costs one wake-up and one
call back into the loop, with all its results. While a bulk step runs, the engine's yield point lets
waiting interactive work run between two layers, one short step at a time so that bulk goes on too.
Decides nothing about order or admission and knows nothing of texts, prompts or what a row means.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from embedfleet.batching.health import Health
from embedfleet.batching.lanes import Request, Work
from embedfleet.batching.planner import Limits
from embedfleet.batching.schedule import Schedule, Submitted
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


class Batcher:
    """Turns many callers' sequences into few engine calls.

    All methods belong to the event loop that called `start`.

    Args:
        run: The engine's operation, called from one thread at a time but nested in yield points.
        limits: Bounds that `reconfigure` can change.
        name: Of the model, for logs and errors.
    """

    def __init__(self, run: Run, limits: Limits, *, name: str) -> None:
        self._run = run
        self._name = name
        self._schedule = Schedule(limits)
        self._changed = threading.Condition(threading.Lock())  # guards _schedule and _closing
        self._thread = threading.Thread(target=self._main, name=f"engine-{name}", daemon=True)
        self._futures: dict[int, asyncio.Future[Submitted]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._closing = False
        self._counters = Counters()
        self._health = Health(name)

    def start(self) -> None:
        """Start the engine's thread; results are delivered to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._health.started()
        self._thread.start()

    async def close(self, *, drain: bool = True) -> None:
        """Refuse new work, finish or drop what waits, and end the thread.

        Args:
            drain: Finish what was admitted. Otherwise its callers get Unavailable, and a running
                bulk step stops at its next layer.
        """
        if self._loop is None:
            return
        with self._changed:
            self._closing = True
            doomed = [] if drain else list(self._schedule.requests.values())
            for request in doomed:
                self._schedule.withdraw(request)
            self._changed.notify()
        for request in doomed:
            self._fail(request, self._closed())
        await self._stopped.wait()
        self._thread.join()

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
        # The future first: once the thread is woken, both sides want the interpreter.
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
        with self._changed:
            self._schedule.reconfigure(limits)

    def stats(self) -> Stats:
        """Count what waits, what runs and what was done."""
        with self._changed:
            return snapshot(self._schedule, self._counters, self._health, monotonic())

    def check_health(self) -> None:
        """Raise if the engine cannot be trusted with more work.

        Raises:
            EngineError: Its thread died, hangs, or fails step after step.
            Unavailable: Not started, or closed.
        """
        problem = self._health.problem(monotonic(), self._schedule.limits)
        if problem is not None:
            raise problem

    # Loop side.

    def _admit(self, work: Work) -> Request:
        with self._changed:
            if self._closing or self._loop is None:
                raise self._closed()
            # The fastest to fail would draw the most work: send it away while health checks notice.
            broken = self._health.problem(monotonic(), self._schedule.limits)
            if broken is not None:
                raise Unavailable(f"{broken.message} Retry on another replica.")
            request = self._schedule.add(work)
            self._changed.notify()
        return request

    def _closed(self) -> Unavailable:
        died = self._health.died()
        state = "not started" if self._loop is None else "shutting down"
        cause = died.message if died else f"{self._name} is {state} and takes no work."
        return Unavailable(f"{cause} Retry on another replica.")

    def _withdraw(self, request: Request) -> None:
        with self._changed:
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

    def _end(self) -> None:
        """Run last: nothing may be left waiting for a thread that is gone."""
        with self._changed:
            self._closing = True
            left = list(self._schedule.requests.values())
            for request in left:
                self._schedule.withdraw(request)
        for request in left:
            self._fail(request, self._closed())
        self._stopped.set()

    # Engine side.

    def _main(self) -> None:
        why = ""
        try:
            while (step := self._next_step()) is not None:
                self._execute(step, partial(self._between_layers, step))
                del step  # the thread may now sleep for hours
        except BaseException as cause:
            _log.critical("%s: the engine's thread died", self._name, exc_info=True)
            why = f"{type(cause).__name__}: {cause}"
        finally:
            self._health.ended(why)
            self._post(self._end)

    def _next_step(self) -> Step | None:
        with self._changed:
            while True:
                step = self._schedule.next_step(monotonic())
                self._post_expired()
                if step is not None or self._closing:
                    return step
                self._changed.wait()

    def _execute(
        self, step: Step, yield_point: YieldPoint | None, host: Step | None = None
    ) -> None:
        """Run a step and deliver it; `host` is the bulk step that it runs inside of."""
        num_tokens = step.pack().num_tokens
        started = self._health.alive(monotonic())
        self._schedule.running_tokens += num_tokens  # this thread alone writes it
        results: list[Outcome] = []
        try:
            results.extend(outcomes(self._run, step, yield_point))
        except StepAbandoned:
            self._counters.abandoned += 1
        now = monotonic()
        if host is not None:
            results = self._postpone(results, host)
        seconds = now - started - step.nested_seconds
        self._schedule.running_tokens -= num_tokens
        with self._changed:
            completed = self._schedule.settle(results, seconds, now)
        self._counters.count(results, num_tokens, seconds)
        self._health.step_ended(results, nested=host is not None)
        if completed:
            self._post(self._deliver, completed)

    def _between_layers(self, step: Step) -> None:
        self._health.alive(monotonic())
        if step.priority is Priority.INTERACTIVE:
            return
        if step.abandoned:
            raise StepAbandoned
        if step.may_nest and self._schedule.interactive:
            self._overtake(step)
        with self._changed:
            ahead = self._schedule.prepare(monotonic())
            self._post_expired()
        if ahead is not None:
            ahead.pack()

    def _overtake(self, host: Step) -> None:
        """Run one interactive step inside a bulk step: one a layer, so that bulk goes on."""
        started = monotonic()
        with self._changed:
            step = self._schedule.next_interactive(started)
            self._post_expired()
        if step is not None:
            self._counters.preemptions += 1
            self._execute(step, None, host)
            host.nested_seconds += monotonic() - started

    def _postpone(self, results: list[Outcome], host: Step) -> list[Outcome]:
        """Put back what found no memory beside the bulk step: it may well fit alone."""
        cramped = [part for part, result in results if isinstance(result, OutOfMemory)]
        if cramped:
            host.may_nest = False
            with self._changed:
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
