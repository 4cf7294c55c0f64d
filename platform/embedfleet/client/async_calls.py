"""Sends requests over one asyncio channel: one, all of an input, or an endless stream of them.

Several requests of one input are under way at once as tasks, each with its retries; leaving the
iteration cancels them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from embedfleet.client.attempts import seconds_for, seconds_to_next
from embedfleet.client.batches import Batch
from embedfleet.client.limits import ItemLimits
from embedfleet.client.options import ClientConfig
from embedfleet.client.retrying import Deadline
from embedfleet.client.transport import METHODS, Method, Target, closed
from embedfleet.client.work import Work
from embedfleet.errors import InvalidRequest

__all__ = ["AsyncCalls"]

Part = TypeVar("Part")


class AsyncCalls:
    """One channel and the ways to use it."""

    def __init__(self, target: Target, config: ClientConfig) -> None:
        self._target = target
        self._config = config
        self._metadata = target.metadata()
        # Opened by the first call: a channel belongs to the event loop that it is opened in.
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._limits = ItemLimits()
        self._closed = False

    async def close(self) -> None:
        """Close the channel; requests under way fail with Cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def all(self, work: Work[Part], batches: Sequence[Batch], seconds: float) -> list[Part]:
        """Run a whole input within one deadline."""
        deadline = Deadline.after(seconds)
        window = self._window(work, batches, lambda: deadline)
        async with aclosing(window):
            return [part async for _, part in window]

    def stream(
        self, work: Work[Part], batches: Iterable[Batch], seconds: float
    ) -> AsyncGenerator[tuple[Batch, Part], None]:
        """Run an input of any length in order, each request within a deadline of its own."""
        return self._window(work, batches, lambda: Deadline.after(seconds))

    async def one(self, method: Method, request: Any, deadline: Deadline) -> Any:
        """Send one request, again where that can help, until it is answered or the time is up."""
        attempt = 1
        while True:
            call = self._method(method)  # each time: the client may have been closed meanwhile
            try:
                seconds = seconds_for(attempt, self._config, deadline)
                return await call(request, timeout=seconds, metadata=self._metadata)
            except grpc.aio.AioRpcError as failure:
                delay = self._delay(failure, attempt, deadline)
            await asyncio.sleep(delay)
            attempt += 1

    async def _window(
        self, work: Work[Part], batches: Iterable[Batch], start: Callable[[], Deadline]
    ) -> AsyncGenerator[tuple[Batch, Part], None]:
        pending: deque[asyncio.Task[list[tuple[Batch, Part]]]] = deque()

        async def send(batch: Batch, deadline: Deadline) -> tuple[Batch, Part]:
            response = await self.one(work.method, work.encode(batch), deadline)
            return batch, work.decode(response, batch)

        async def run(batch: Batch) -> list[tuple[Batch, Part]]:
            try:
                return [await send(batch, start())]
            except InvalidRequest as refusal:
                await self._learn(work.model, batch, refusal, start())
            return [await send(part, start()) for part in self._limits.fit(work.model, [batch])]

        try:
            for batch in self._limits.fit(work.model, batches):
                pending.append(asyncio.create_task(run(batch)))
                if len(pending) >= self._config.max_in_flight:
                    for done in await pending.popleft():
                        yield done
            while pending:
                for done in await pending.popleft():
                    yield done
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _learn(
        self, model: str, batch: Batch, refusal: InvalidRequest, deadline: Deadline
    ) -> None:
        """Ask how many items fit into a request, if that was refused; else raise the refusal."""
        if self._limits.is_news(model, batch, refusal):
            method = METHODS["GetModel"]
            found = await self.one(method, method.request(model=model.encode()), deadline)
            self._limits.learn(model, batch, refusal, found.model.max_items_per_request)

    def _method(self, method: Method) -> Any:
        if self._closed:
            raise closed()
        if self._channel is None:
            self._channel = self._target.open(grpc.aio, self._config)
            self._methods = {known.path: known.bind(self._channel) for known in METHODS.values()}
        return self._methods[method.path]

    def _delay(self, failure: Any, attempt: int, deadline: Deadline) -> float:
        return seconds_to_next(failure, attempt, self._target, self._config, deadline)
