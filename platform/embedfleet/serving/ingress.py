"""What every ingress deployment of a fleet has in common: one method for each RPC of each service.

Serve calls the ingress method of an RPC's name, whichever service it belongs to, so methods
dispatch on the type of the request. A request without a handler is refused with a sentence.
Refusals set the status on the call's context instead of raising: Serve would log a traceback for
every bad request.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from embedfleet.errors import EmbedfleetError, EngineError, Unsupported
from embedfleet.rendering.replica import MAX_MESSAGE_BYTES
from embedfleet.serving.services import SERVICES, Received
from embedfleet.status import to_status

__all__ = ["Call", "Encoded", "Ingress", "StreamHandler", "UnaryHandler", "log_to_stderr", "refuse"]

logger = logging.getLogger("embedfleet.serving")

TIMEOUT_HEADER: Final = "x-embedfleet-timeout"
"""The caller's `grpc-timeout`, which gRPC itself keeps from handlers; set by the edge alone."""

STREAM_MESSAGES: Final = 16
STREAM_ITEMS: Final = 1_024
"""Messages, and items in them, of one stream that are worked on at once: bounds what a client that
never reads can hold."""

_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Call:
    """What a handler may know of the call it serves.

    Attributes:
        deadline: Monotonic time at which the caller gives up, None if it waits for ever.
    """

    __slots__ = ("deadline",)

    def __init__(self, timeout_seconds: float | None) -> None:
        self.deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    @classmethod
    def of(cls, context: Any) -> Call:
        """Read the caller's timeout, None if it waits for ever."""
        for key, value in context.invocation_metadata():
            if key == TIMEOUT_HEADER and (found := _TIMEOUT.fullmatch(value)):
                return cls(int(found[1]) * _TIMEOUT_UNITS[found[2]])
        return cls(None)


UnaryHandler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class StreamHandler:
    """How a stream is served: every message stands for itself.

    Attributes:
        answer: Answers one message.
        failed: Makes the answer that tells why a message has none; the stream goes on. Is given the
            error alone, twice, where the message could not be read.
        num_items: Counts what one message asks for.
    """

    answer: UnaryHandler
    failed: Callable[[Any, EmbedfleetError], Any]
    num_items: Callable[[Any], int]


class _Empty:
    """An answer without bytes, for calls whose status says it all."""

    @staticmethod
    def SerializeToString() -> bytes:
        return b""


EMPTY: Final = _Empty()


class Encoded:
    """An answer that is serialized already."""

    __slots__ = ("_payload",)

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def SerializeToString(self) -> bytes:
        """Return the bytes, as a message would."""
        return self._payload


def refuse(context: Any, error: EmbedfleetError) -> _Empty:
    """Put an error on a call: code, message and machine-readable details."""
    status = to_status(error)
    context.set_code(getattr(grpc.StatusCode, error.code))
    context.set_details(status.message)
    # Serve keeps what is there, such as the request's id.
    context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
    return EMPTY


def _unexpected(error: Exception) -> EmbedfleetError:
    logger.exception("A handler failed.")
    return EngineError(f"This is a bug: {type(error).__name__}: {error}")


def _unsupported(kind: type[Message]) -> Unsupported:
    return Unsupported(
        f"This release does not answer {kind.DESCRIPTOR.full_name}. Use "
        "embedfleet.v1.EmbeddingService, RerankingService or ModelService."
    )


def log_to_stderr() -> None:
    """Write this process's own lines where Ray keeps them, beside Serve's.

    Serve's own logger is set to warnings: below that it builds a line for every request, even where
    the access log is off and the line is thrown away.
    """
    ours = logging.getLogger("embedfleet")
    if ours.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


class Ingress:
    """Answers every registered RPC; subclasses bring handlers by request type.

    Attributes:
        max_message_bytes: Largest message that is read. The edge knows only a call's first one, and
            its length as it is sent; subclasses set what their fleet takes.
    """

    def __init__(
        self,
        unary: dict[type[Message], UnaryHandler],
        streams: dict[type[Message], StreamHandler],
    ) -> None:
        self._unary = unary
        self._streams = streams
        self.max_message_bytes = MAX_MESSAGE_BYTES
        log_to_stderr()

    async def _answer(self, received: Received, context: Any) -> Any:
        try:
            handler = self._unary.get(received.kind)
            if handler is None:
                return refuse(context, _unsupported(received.kind))
            return await handler(received.parse(self.max_message_bytes), Call.of(context))
        except EmbedfleetError as error:
            return refuse(context, error)
        except Exception as error:
            return refuse(context, _unexpected(error))

    async def _answer_stream(
        self, requests: AsyncIterator[Received], context: Any
    ) -> AsyncGenerator[Any, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        handler = self._streams.get(first.kind)
        if handler is None:
            refuse(context, _unsupported(first.kind))
            return
        async for response in _pump(self._parsed(first, requests), handler, Call.of(context)):
            yield response

    async def _parsed(
        self, first: Received, rest: AsyncIterator[Received]
    ) -> AsyncIterator[Message | EmbedfleetError]:
        """Read a stream's messages; one that cannot be read becomes what is wrong with it."""
        yield self._parse(first)
        async for received in rest:
            yield self._parse(received)

    def _parse(self, received: Received) -> Message | EmbedfleetError:
        try:
            return received.parse(self.max_message_bytes)
        except EmbedfleetError as error:
            return error

    async def _answer_once_streaming(
        self, received: Received, context: Any
    ) -> AsyncGenerator[Any, None]:
        yield await self._answer(received, context)


class _Window:
    """Room for messages of a stream, by number and by items; one that is too large goes alone."""

    def __init__(self) -> None:
        self._messages = self._items = 0
        self._freed = asyncio.Event()

    async def take(self, num_items: int) -> None:
        while self._messages and (
            self._messages >= STREAM_MESSAGES or self._items + num_items > STREAM_ITEMS
        ):
            self._freed.clear()
            await self._freed.wait()
        self._messages += 1
        self._items += num_items

    def free(self, num_items: int) -> None:
        self._messages -= 1
        self._items -= num_items
        self._freed.set()


async def _pump(
    requests: AsyncIterator[Message | EmbedfleetError], handler: StreamHandler, call: Call
) -> AsyncGenerator[Any, None]:
    """Answer a stream's messages side by side, yielding answers as they are ready.

    Room is held from a message's arrival until its answer has been taken, so a client that never
    reads stops being read from.
    """
    window = _Window()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    done = object()

    async def one(request: Any, num_items: int) -> None:
        try:
            if isinstance(request, EmbedfleetError):
                raise request
            answer = await handler.answer(request, call)
        except EmbedfleetError as error:
            answer = handler.failed(request, error)
        except Exception as error:
            answer = handler.failed(request, _unexpected(error))
        answers.put_nowait((answer, num_items))

    async def read() -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in requests:
                num_items = (
                    1 if isinstance(request, EmbedfleetError) else handler.num_items(request)
                )
                await window.take(num_items)
                tasks.create_task(one(request, num_items))

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: answers.put_nowait(done))
    try:
        while (item := await answers.get()) is not done:
            answer, num_items = item
            window.free(num_items)
            yield answer
        await reader
    finally:
        reader.cancel()


def _unary_method(name: str) -> Callable[..., Any]:
    async def method(self: Ingress, request: Any, grpc_context: Any) -> Any:
        return await self._answer(request, grpc_context)

    method.__name__ = name
    return method


def _streaming_method(name: str, client_stream: bool) -> Callable[..., Any]:
    async def many(self: Ingress, request: Any, grpc_context: Any) -> AsyncGenerator[Any, None]:
        async for response in self._answer_stream(request, grpc_context):
            yield response

    async def once(self: Ingress, request: Any, grpc_context: Any) -> AsyncGenerator[Any, None]:
        async for response in self._answer_once_streaming(request, grpc_context):
            yield response

    method = many if client_stream else once
    method.__name__ = name
    return method


for _rpcs in SERVICES.values():
    for _name, _rpc in _rpcs.items():
        if _rpc.server_stream:
            setattr(Ingress, _name, _streaming_method(_name, _rpc.client_stream))
        else:
            setattr(Ingress, _name, _unary_method(_name))
