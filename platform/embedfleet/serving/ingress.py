"""What every ingress deployment of a fleet has in common: one method for each RPC of each service.

Serve calls the ingress method of an RPC's name, whichever service it belongs to, so methods
dispatch on the type of the request. A request without a handler is refused with a sentence.
Refusals set the status on the call's context instead of raising: Serve would log a traceback for
every bad request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from embedfleet.errors import Cancelled, EmbedfleetError, EngineError, InvalidRequest, Unsupported
from embedfleet.serving.services import SERVICES, Malformed
from embedfleet.status import to_status

__all__ = ["Call", "Ingress", "StreamHandler", "UnaryHandler", "pump", "refuse"]

logger = logging.getLogger("embedfleet.serving")

TIMEOUT_HEADER: Final = "x-embedfleet-timeout"
"""The caller's `grpc-timeout`, which gRPC itself keeps from handlers; set by the edge alone."""

STREAM_CONCURRENCY: Final = 16
"""Messages of one stream worked on at once: bounds what a client that never reads can hold."""

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
            if key == TIMEOUT_HEADER and value[-1:] in _TIMEOUT_UNITS and value[:-1].isdigit():
                return cls(int(value[:-1]) * _TIMEOUT_UNITS[value[-1]])
        return cls(None)


UnaryHandler = Callable[[Any, Call], Awaitable[Any]]
StreamHandler = Callable[[AsyncIterator[Any], Call], AsyncGenerator[Any, None]]


class _Empty:
    """An answer without bytes, for calls whose status says it all."""

    @staticmethod
    def SerializeToString() -> bytes:
        return b""


EMPTY: Final = _Empty()


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


def _refusal(request: Any) -> EmbedfleetError:
    if isinstance(request, Malformed):
        return InvalidRequest(
            f"The request's bytes are not a {request.message_name}: {request.detail}. Check that "
            "client and server use the same proto files, and that all text is UTF-8."
        )
    package = request.DESCRIPTOR.full_name
    return Unsupported(
        f"This release does not answer {package}. Use embedfleet.v1.EmbeddingService, "
        "RerankingService or ModelService."
    )


class Ingress:
    """Answers every registered RPC; subclasses bring handlers by request type."""

    def __init__(
        self,
        unary: dict[type[Message], UnaryHandler],
        streams: dict[type[Message], StreamHandler],
    ) -> None:
        self._unary = unary
        self._streams = streams

    async def _answer(self, request: Any, context: Any) -> Any:
        try:
            handler = self._unary.get(type(request))
            if handler is None:
                return refuse(context, _refusal(request))
            return await handler(request, Call.of(context))
        except EmbedfleetError as error:
            return refuse(context, error)
        except Exception as error:
            return refuse(context, _unexpected(error))

    async def _answer_stream(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncGenerator[Any, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        handler = self._streams.get(type(first))
        try:
            if handler is None:
                raise _refusal(first)
            async for response in handler(_chain(first, requests), Call.of(context)):
                yield response
        except EmbedfleetError as error:
            refuse(context, error)
        except Exception as error:
            refuse(context, _unexpected(error))

    async def _answer_once_streaming(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        yield await self._answer(request, context)


async def _chain(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for request in rest:
        yield request


async def pump(
    requests: AsyncIterator[Any], answer: Callable[[Any], Awaitable[Any]]
) -> AsyncGenerator[Any, None]:
    """Answer a stream's messages side by side, yielding answers as they are ready.

    A slot is held from a message's arrival until its answer has been taken, so a client that never
    reads stops being read from.
    """
    slots = asyncio.Semaphore(STREAM_CONCURRENCY)
    answers: asyncio.Queue[Any] = asyncio.Queue()
    done = object()

    async def one(request: Any) -> None:
        answers.put_nowait(await answer(request))

    async def read() -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in requests:
                await slots.acquire()
                tasks.create_task(one(request))

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: answers.put_nowait(done))
    try:
        while (item := await answers.get()) is not done:
            slots.release()
            yield item
        if reader.cancelled():
            raise Cancelled("The stream was cancelled.")
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
