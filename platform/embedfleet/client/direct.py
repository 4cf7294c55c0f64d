"""Calls straight to an application of Serve, past the edge: what those who run a fleet ask it."""

from __future__ import annotations

from typing import Any, Final

import grpc

from embedfleet.client.models import to_model_info
from embedfleet.client.options import ClientConfig
from embedfleet.client.results import ModelInfo
from embedfleet.client.transport import METHODS, Method, Target, rich_status
from embedfleet.status import from_status
from embedfleet.wire import model_pb2

__all__ = ["ask", "describe", "describe_at"]

_APPLICATION: Final = "application"
"""Metadata by which Serve's proxies find the application."""


async def ask(
    channel: grpc.aio.Channel, application: str, method: Method, request: Any, timeout: float
) -> Any:
    """Call an application once.

    Args:
        channel: To Serve's proxies, or to the fleet's edge.
        application: Such as `emb-docs`.
        method: One of `METHODS`.
        request: Its message.
        timeout: In seconds.

    Raises:
        EmbedfleetError: It does not answer as it should.
    """
    try:
        return await method.bind(channel)(
            request, timeout=timeout, metadata=((_APPLICATION, application),)
        )
    except grpc.aio.AioRpcError as failure:
        details = failure.details() or ""
        raise from_status(failure.code(), details, rich_status(failure)) from failure


async def describe(
    channel: grpc.aio.Channel, application: str, name: str, timeout: float
) -> ModelInfo:
    """Ask a model what it is; see `ask`."""
    request = model_pb2.GetModelRequest(model=name.encode())
    answer = await ask(channel, application, METHODS["GetModel"], request, timeout)
    return to_model_info(answer.model)


async def describe_at(address: str, application: str, name: str, timeout: float) -> ModelInfo:
    """Ask a model at `host:port` what it is; see `ask`."""
    async with Target(address, None, "").open(grpc.aio, ClientConfig()) as channel:
        return await describe(channel, application, name, timeout)
