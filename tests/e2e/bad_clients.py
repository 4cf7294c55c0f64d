"""Clients that misbehave: `python bad_clients.py KIND ENDPOINT` until its input ends.

Kinds are the names of functions: `idle`, `deaf`, `garbage`. Prints how many connections it made.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from raw_http2 import DATA, END_STREAM, PREFACE, SETTINGS, frame, opening

from embedfleet.v1 import common_pb2, embedding_pb2

EMBED = "/embedfleet.v1.EmbeddingService/Embed"
IDLE, DEAF, NOISY = 1000, 200, 20
_INITIAL_WINDOW_SIZE = 4
_CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
_PAUSE_SECONDS = 0.05

Endpoint = tuple[str, int]


async def idle(endpoint: Endpoint) -> int:
    """Open streams and never say what for."""
    for _ in range(IDLE):
        writer = await _connected(endpoint)
        writer.write(opening(EMBED))
    return IDLE


async def deaf(endpoint: Endpoint) -> int:
    """Ask, and leave no room for an answer: no window in HTTP/2, and nothing is read."""
    no_window = frame(SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0))
    request = embedding_pb2.EmbedRequest(
        model="docs", input_type=common_pb2.DOCUMENT, items=[embedding_pb2.EmbedItem(text="a")] * 64
    ).SerializeToString()
    message = b"\x00" + struct.pack(">I", len(request)) + request
    said = opening(EMBED).replace(frame(SETTINGS, 0, 0, b""), no_window, 1)
    for _ in range(DEAF):
        writer = await _connected(endpoint)
        writer.write(said + frame(DATA, END_STREAM, 1, message))
        await asyncio.sleep(_PAUSE_SECONDS)
    return DEAF


async def garbage(endpoint: Endpoint) -> int:
    """Send what is no gRPC, again and again, on many connections at once."""
    dice = random.Random(1)
    made = 0

    async def shout() -> None:
        nonlocal made
        while True:
            made += 1
            kinds = (
                dice.randbytes(4096), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", _CLIENT_HELLO,
                PREFACE + dice.randbytes(4096), opening(EMBED) + frame(DATA, 0, 1, b"\xff" * 64),
            )  # fmt: skip
            writer = await _connected(endpoint)
            try:
                writer.write(dice.choice(kinds))
                await writer.drain()
                await asyncio.sleep(_PAUSE_SECONDS)
            except ConnectionError:
                pass
            finally:
                _KEPT.discard(writer)
                writer.transport.abort()

    shouting = [asyncio.create_task(shout()) for _ in range(NOISY)]
    try:
        await _ENDED.wait()
    finally:
        for each in shouting:
            each.cancel()
        await asyncio.gather(*shouting, return_exceptions=True)
    return made


_ENDED = asyncio.Event()
_KEPT: set[asyncio.StreamWriter] = set()
KINDS: Mapping[str, Callable[[Endpoint], Awaitable[int]]] = {
    "idle": idle, "deaf": deaf, "garbage": garbage,
}  # fmt: skip


async def _connected(endpoint: Endpoint) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(*endpoint)
    # Nothing is taken from the kernel, so that it takes no more than its buffers hold either.
    cast(asyncio.Transport, writer.transport).pause_reading()
    _KEPT.add(writer)
    return writer


async def main(kind: str, endpoint: Endpoint) -> int:
    asyncio.get_running_loop().add_reader(sys.stdin, _ENDED.set)
    made = await KINDS[kind](endpoint)
    await _ENDED.wait()
    for each in list(_KEPT):
        each.transport.abort()
    return made


if __name__ == "__main__":
    host, _, port = sys.argv[2].rpartition(":")
    sys.stdout.write(str(asyncio.run(main(sys.argv[1], (host, int(port))))))
