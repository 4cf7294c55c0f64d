"""Sends requests over one blocking channel: one, all of an input, or an endless stream of them.

Several requests of one input are under way at once as gRPC futures: no thread is started here, and
nothing is left behind when an input is abandoned half way. A failed request is tried again when its
turn to be read comes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import grpc

from embedfleet.client.attempts import seconds_for, seconds_to_next, unanswered
from embedfleet.client.batches import Batch
from embedfleet.client.limits import ItemLimits
from embedfleet.client.options import ClientConfig
from embedfleet.client.retrying import Deadline
from embedfleet.client.transport import METHODS, Method, Target, closed
from embedfleet.client.work import Work
from embedfleet.errors import InvalidRequest

__all__ = ["BlockingCalls"]

Part = TypeVar("Part")


class BlockingCalls:
    """One channel and the ways to use it."""

    def __init__(self, target: Target, config: ClientConfig) -> None:
        self._target = target
        self._config = config
        self._channel = target.open(grpc, config)
        self._methods = {method.path: method.bind(self._channel) for method in METHODS.values()}
        self._metadata = target.metadata()
        self._limits = ItemLimits()
        self._closed = False

    def close(self) -> None:
        """Close the channel; requests under way fail with Cancelled."""
        self._closed = True
        self._channel.close()

    def all(self, work: Work[Part], batches: Sequence[Batch], seconds: float) -> list[Part]:
        """Run a whole input within one deadline."""
        deadline = Deadline.after(seconds)
        batches = list(self._limits.fit(work.model, batches))
        if len(batches) == 1:
            # A plain call answers sooner than a future: no thread hands it over.
            try:
                response = self.one(work.method, work.encode(batches[0]), deadline)
            except InvalidRequest as refusal:
                self._learn(work.model, batches[0], refusal, deadline)
            else:
                return [work.decode(response, batches[0])]
        return [part for _, part in self._window(work, batches, lambda: deadline)]

    def stream(
        self, work: Work[Part], batches: Iterable[Batch], seconds: float
    ) -> Iterator[tuple[Batch, Part]]:
        """Run an input of any length in order, each request within a deadline of its own."""
        return self._window(work, batches, lambda: Deadline.after(seconds))

    def one(self, method: Method, request: Any, deadline: Deadline, attempt: int = 1) -> Any:
        """Send one request, again where that can help, until it is answered or the time is up.

        Args:
            method: The RPC.
            request: Its message.
            deadline: Bound for all attempts together.
            attempt: Number of the first attempt made here.
        """
        while True:
            call = self._method(method)  # each time: the client may have been closed meanwhile
            try:
                seconds = seconds_for(attempt, self._config, deadline)
                return call(request, timeout=seconds, metadata=self._metadata)
            except grpc.RpcError as failure:
                time.sleep(self._delay(failure, attempt, deadline))
            attempt += 1

    def _window(
        self, work: Work[Part], batches: Iterable[Batch], start: Callable[[], Deadline]
    ) -> Iterator[tuple[Batch, Part]]:
        pending: deque[tuple[Batch, Any, Any, Deadline]] = deque()

        def first() -> Iterator[tuple[Batch, Part]]:
            batch, request, future, deadline = pending[0]
            try:
                response = self._read(work.method, request, future, deadline, start)
            except InvalidRequest as refusal:
                self._learn(work.model, batch, refusal, start())
                pending.popleft()
                for part in self._limits.fit(work.model, [batch]):
                    response = self.one(work.method, work.encode(part), start())
                    yield part, work.decode(response, part)
                return
            # Only now: what is still in the queue is cancelled if reading fails.
            pending.popleft()
            yield batch, work.decode(response, batch)

        try:
            for batch in self._limits.fit(work.model, batches):
                request = work.encode(batch)
                deadline = start()
                future = self._send(work.method, request, deadline)
                pending.append((batch, request, future, deadline))
                if len(pending) >= self._config.max_in_flight:
                    yield from first()
            while pending:
                yield from first()
        finally:
            for _, _, future, _ in pending:
                future.cancel()

    def _learn(self, model: str, batch: Batch, refusal: InvalidRequest, deadline: Deadline) -> None:
        """Ask how many items fit into a request, if that was refused; else raise the refusal."""
        if self._limits.is_news(model, batch, refusal):
            method = METHODS["GetModel"]
            found = self.one(method, method.request(model=model.encode()), deadline)
            self._limits.learn(model, batch, refusal, found.model.max_items_per_request)

    def _send(self, method: Method, request: Any, deadline: Deadline) -> Any:
        call = self._method(method)
        seconds = seconds_for(1, self._config, deadline)
        return call.future(request, timeout=seconds, metadata=self._metadata)

    def _read(
        self,
        method: Method,
        request: Any,
        future: Any,
        deadline: Deadline,
        start: Callable[[], Deadline],
    ) -> Any:
        try:
            return future.result()
        except grpc.RpcError as failure:
            if not unanswered(failure):
                # In a stream retries get their own time: the caller may have come late to read.
                deadline = start()
            time.sleep(self._delay(failure, 1, deadline))
        return self.one(method, request, deadline, attempt=2)

    def _method(self, method: Method) -> Any:
        if self._closed:
            raise closed()
        return self._methods[method.path]

    def _delay(self, failure: Any, attempt: int, deadline: Deadline) -> float:
        return seconds_to_next(failure, attempt, self._target, self._config, deadline)
