"""A closed-loop load generator: callers that each send one prepared request after the other.

Requests are bytes made beforehand and answers stay bytes, so that the generator takes as little
of the machine as it can, the same for whoever is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import grpc
import numpy as np
import numpy.typing as npt

from embedfleet.wire import common_pb2, embedding_pb2

EMBED = "/embedfleet.v1.EmbeddingService/Embed"
TEXT = "which moon pulls on the water of the earth"

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Target:
    """Where calls go, and with which headers."""

    endpoint: str
    metadata: Metadata = ()


@dataclass(frozen=True)
class Load:
    """How hard a target is called."""

    callers: int = 64
    channels: int = 8
    seconds: float = 5.0


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        latencies: Seconds of each call.
        per_second: Calls a second.
    """

    latencies: npt.NDArray[np.float64]
    per_second: float

    def percentile(self, share: float) -> float:
        """Return a percentile of the latency, in milliseconds."""
        return float(np.percentile(self.latencies, share) * 1e3)


def short_query(model: str = "m") -> bytes:
    """Write the request of one short text."""
    request = embedding_pb2.EmbedRequest(
        model=model.encode(),
        items=[embedding_pb2.EmbedItem(text=TEXT.encode())],
        input_type=common_pb2.QUERY,
    )
    return bytes(request.SerializeToString())


def call_load(target: Target, request: bytes, load: Load) -> Answers:
    """Call as hard as asked and gather what came back."""
    return asyncio.run(_call_load(target, request, load))


async def _call_load(target: Target, request: bytes, load: Load) -> Answers:
    # Without a setting of its own each channel would share one connection with the others.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.aio.insecure_channel(target.endpoint, options) for _ in range(load.channels)]
    calls = [channel.unary_unary(EMBED) for channel in channels]
    for call in calls:
        await call(request, metadata=target.metadata)
    started = perf_counter()
    until = started + load.seconds
    latencies: list[float] = []

    async def caller(number: int) -> None:
        call = calls[number % load.channels]
        while (sent := perf_counter()) < until:
            await call(request, metadata=target.metadata)
            latencies.append(perf_counter() - sent)

    await asyncio.gather(*(caller(number) for number in range(load.callers)))
    seconds = perf_counter() - started
    for channel in channels:
        await channel.close()
    return Answers(np.array(latencies), len(latencies) / seconds)
