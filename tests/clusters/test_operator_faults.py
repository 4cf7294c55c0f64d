"""Whatever goes wrong on the way, the operator comes to the same point and rests there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from control_plane import ControlPlane
from operator_course import (
    FIRST,
    REASON,
    Course,
    change,
    comes_to_rest,
    resource,
    rests,
    rollout,
)
from operator_process import condition
from operator_world import PATIENCE_SECONDS, Crash, Fault, Wire, is_write

from embedfleet_operator.cluster.api import Answer, Request, Send

pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(900),
]

AT_ONCE = 8
RESYNC_SECONDS = 4.0
"""Time between two lists, which make good for events that were lost."""


def crash_at(n: int, crashed: set[int]) -> Fault:
    """End the process once: right before the n-th write if n is even, else right after it."""

    async def fault(wire: Wire, request: Request, carry: Send) -> Answer:
        if n in crashed or not is_write(request) or wire.writes < n:
            return await carry(request)
        crashed.add(n)
        if n % 2:
            await carry(request)
        raise Crash

    return fault


async def all_of(runs: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do what mostly waits, some at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(run: Callable[[], Awaitable[None]]) -> None:
        async with places:
            await run()

    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(one(run))


async def test_a_crash_at_any_write_changes_nothing(plane: ControlPlane, course: Course) -> None:
    crashed: set[int] = set()
    await all_of(
        partial(comes_to_rest, plane, course, f"crash-{n:03}-here", crash_at(n, crashed))
        for n in range(1, course.writes + 1)
    )
    # How many statuses lie between two points rests on the order in which fleets take turns.
    assert len(crashed) > 0.8 * course.writes


async def test_the_order_of_creation_changes_nothing(plane: ControlPlane, course: Course) -> None:
    async with rollout(plane, "order-here") as (world, wire):
        for each in reversed(FIRST):
            await world.create(each)
            # A model is there before its fleet is.
            await wire.quiet(0.5)
        await world.reaches(course.first, wire)
        await world.create(
            resource("Embedder", "early", fleet="none", model={"size": "0.6B", "cache": "late"})
        )
        await wire.quiet(0.5)
        await world.create(
            resource("ModelCache", "late", source={"pvc": {"claimName": "team", "folder": "/m"}})
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while condition(await world.get("Embedder", "early"), "Accepted")[1] != "FleetMissing":
                await asyncio.sleep(0.2)


async def torn(lines: AsyncIterator[bytes], every: int) -> AsyncIterator[bytes]:
    """Lose every so many-th line."""
    number = 0
    async for line in lines:
        number += 1
        if number % every:
            yield line


async def doubled(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line
        yield line


async def swapped(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give every second line before the one that it came after, unless that waits too long."""
    arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def read() -> None:
        async for line in lines:
            arrived.put_nowait(line)
        arrived.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (first := await arrived.get()) is not None:
            second: bytes | None = None
            with suppress(TimeoutError):
                second = await asyncio.wait_for(arrived.get(), 0.5)
                if second is None:
                    arrived.put_nowait(None)
            if second is not None:
                yield second
            yield first
    finally:
        reading.cancel()


def on_watches(harm: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]) -> Fault:
    async def fault(wire: Wire, request: Request, carry: Send) -> Answer:
        answer = await carry(request)
        return answer if answer.lines is None else replace(answer, lines=harm(answer.lines))

    return fault


def old_lists(seconds: float) -> Fault:
    """Answer each list for so long with what the first was, as a cache that lags does."""
    kept: dict[str, tuple[float, Answer]] = {}

    async def fault(wire: Wire, request: Request, carry: Send) -> Answer:
        now = asyncio.get_running_loop().time()
        if request.streams or "limit" not in request.query:
            return await carry(request)
        since, first = kept.get(request.path, (now, None))
        if first is not None and now - since < seconds:
            return first
        # From here on the cache is fresh for a while, and then lags behind this.
        answer = await carry(request)
        kept[request.path] = (now, answer)
        return answer

    return fault


def refusals(every: int) -> Fault:
    """Spoil every so many-th write: not made, made and not said, or lost with the connection."""

    def status(code: int, reason: str) -> Answer:
        return Answer(code, json.dumps({"reason": reason, "message": "injected"}).encode())

    async def fault(wire: Wire, request: Request, carry: Send) -> Answer:
        if not is_write(request) or wire.writes % every:
            return await carry(request)
        kind = wire.writes // every % 4
        if kind == 0:
            return status(409, "Conflict")
        if kind == 1:
            return status(500, "InternalError")
        await carry(request)
        if kind == 2:
            return status(500, "InternalError")
        raise ConnectionError("injected")

    return fault


FAULTS: Mapping[str, Fault] = {
    "lost": on_watches(lambda lines: torn(lines, 3)),
    "doubled": on_watches(doubled),
    "swapped": on_watches(swapped),
    "old": old_lists(3 * RESYNC_SECONDS),
    "refused": refusals(7),
}


async def test_messages_that_go_wrong_change_nothing(plane: ControlPlane, course: Course) -> None:
    await all_of(
        partial(comes_to_rest, plane, course, f"messages-{name}-here", fault, RESYNC_SECONDS)
        for name, fault in FAULTS.items()
    )


async def test_a_restart_of_the_api_server_changes_nothing(
    plane: ControlPlane, course: Course
) -> None:
    async with rollout(plane, "restart-here") as (world, wire):
        await world.create(*FIRST)
        while wire.writes < 8:
            await asyncio.sleep(0.02)
        # Not in a thread: its end would be the server's.
        plane.stop()
        await asyncio.sleep(3)
        plane.start()
        await world.reaches(course.first, wire)
        plane.stop()
        plane.start()
        await change(world)
        await world.reaches(course.second, wire)
        await rests(world, wire, course)
