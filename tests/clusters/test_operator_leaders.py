"""Of two operators one writes, and the other only after the first has ended."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest
from control_plane import ControlPlane
from memory_serve import Guest, Serve, guests
from operator_course import FIRST, REASON
from operator_world import Wire, World, operating, wired

from embedfleet_operator.cluster.api import Answer, ApiError, Request, Send
from embedfleet_operator.settings import Settings

pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(900),
]

TAKES_OVER_SECONDS = 60.0
"""A lease of 15 s, two attempts to take it, and what a busy machine adds."""


async def keep_changing(world: World) -> None:
    """Give whoever leads something to write, all the time."""
    for number in itertools.count():
        with suppress(ApiError):
            # Another may have changed it meanwhile.
            await world.change("Embedder", "docs", {"instruction": {"default": f"Find {number}."}})
        await asyncio.sleep(0.3)


def last_end(wire: Wire) -> float:
    return max(end for _, end, _ in wire.log)


async def first_write(wire: Wire, since: float, within: float) -> float:
    """Wait for a write that began later."""
    while True:
        found = [began for began, _, _ in wire.log if began > since]
        if found:
            return found[0]
        assert time.monotonic() < since + within, "nobody took over"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("partitioned", [False, True], ids=["killed", "partitioned"])
async def test_two_operators_never_write_at_once(plane: ControlPlane, partitioned: bool) -> None:
    name = f"leaders-{'partitioned' if partitioned else 'killed'}"
    cut = asyncio.Event()

    async def fault(wire: Wire, request: Request, carry: Send) -> Answer:
        if not cut.is_set():
            return await carry(request)
        # As long as the connection itself waits for a write.
        await asyncio.sleep(5)
        raise TimeoutError

    connect = guests(Guest(Serve()))
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World.of(plane, name))
        first = await stack.enter_async_context(wired(plane, fault))
        second = await stack.enter_async_context(wired(plane))
        leading = await stack.enter_async_context(AsyncExitStack())
        settings = Settings((name,), name, identity="first")
        await leading.enter_async_context(operating(first, connect, settings))
        settings = replace(settings, identity="second")
        follower = operating(second, connect, settings, leading=False)
        await stack.enter_async_context(follower)
        await world.create(*FIRST)
        changing = asyncio.create_task(keep_changing(world))
        stack.callback(changing.cancel)
        await first_write(first, time.monotonic(), TAKES_OVER_SECONDS)
        await asyncio.sleep(3)
        assert not second.log
        lost = time.monotonic()
        if partitioned:
            cut.set()
        else:
            await leading.aclose()
        began = await first_write(second, lost, TAKES_OVER_SECONDS)
        # Those that were given up count, too: nobody knows whether they arrived.
        assert last_end(first) < began
        cut.clear()
        first.log.clear()
        await asyncio.sleep(6)
        assert not first.log
