"""Asks for more than a fleet can do, with calls of lower priority, and counts what comes back.

Usage: python load.py ENDPOINT CALLS_PER_SECOND    until its input ends; prints `Load` as JSON.

With 0 calls a second, a few callers wait for their answers instead: that measures the capacity.
Without the client of this project, which would wait and try again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from embedfleet.v1 import common_pb2, embedding_pb2

__all__ = ["Load"]

CALLERS = 8
CHANNELS = 4
TIMEOUT_SECONDS = 600.0
TEXT = "A hand-painted vase stands on the shelf beside the window of the old house. " * 6
ITEMS = 64
EMBED = "/embedfleet.v1.EmbeddingService/Embed"


@dataclass
class Load:
    """What became of the calls.

    Attributes:
        refused: RESOURCE_EXHAUSTED with a hint when to come back.
        waiting: Under way at the end, and given up then.
        other: Anything else, by code and message.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    waiting: int = 0
    seconds: float = 0.0
    other: dict[str, int] = field(default_factory=dict)


def hinted(failure: grpc.aio.AioRpcError) -> bool:
    """Whether a refusal says when to come back."""
    status = rpc_status.from_call(failure)
    return status is not None and any(
        detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details
    )


async def call(method: Any, request: Any, load: Load) -> None:
    """Make one call and count it."""
    load.sent += 1
    try:
        await method(request, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and hinted(failure):
            load.refused += 1
        else:
            told = f"{failure.code().name}: {failure.details()}"
            load.other[told] = load.other.get(told, 0) + 1
    except asyncio.CancelledError:
        load.waiting += 1
        raise
    else:
        load.answered += 1


async def main(endpoint: str, calls_per_second: float) -> Load:
    load, ended = Load(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    items = [embedding_pb2.EmbedItem(text=TEXT)] * ITEMS
    request = embedding_pb2.EmbedRequest(
        model="docs", items=items, input_type=common_pb2.DOCUMENT, priority=common_pb2.BULK
    )
    channels = [
        grpc.aio.insecure_channel(endpoint, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    methods = [
        each.unary_unary(
            EMBED,
            request_serializer=embedding_pb2.EmbedRequest.SerializeToString,
            response_deserializer=embedding_pb2.EmbedResponse.FromString,
        )
        for each in channels
    ]
    began = time.monotonic()
    tasks: set[asyncio.Task[None]] = set()

    async def waits(number: int) -> None:
        while not ended.is_set():
            await call(methods[number % CHANNELS], request, load)

    async def floods() -> None:
        while not ended.is_set():
            while load.sent < (time.monotonic() - began) * calls_per_second:
                task = asyncio.create_task(call(methods[load.sent % CHANNELS], request, load))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)

    callers = [floods()] if calls_per_second else [waits(each) for each in range(CALLERS)]
    running = [asyncio.create_task(each) for each in callers]
    await ended.wait()
    load.seconds = time.monotonic() - began
    for task in (*running, *tasks):
        task.cancel()
    await asyncio.gather(*running, *tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return load


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(asyncio.run(main(sys.argv[1], float(sys.argv[2]))))))
