"""The gate that requests wait at: a set pace holds through pauses too."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from embedfleet.tuning.synthesis.pauses import Gate

INTERVAL = 0.05
PAUSE = 0.3


async def moments(gate: Gate, count: int) -> list[float]:
    """Let so many requests wait at once, and tell when each went."""
    went: list[float] = []

    async def wait() -> None:
        await gate.wait()
        went.append(time.monotonic())

    await asyncio.gather(*(wait() for _ in range(count)))
    return went


def paced() -> Gate:
    return Gate(60 / INTERVAL, Random(0))


async def test_what_waited_for_a_pause_goes_at_the_set_pace() -> None:
    gate = paced()
    ends = time.monotonic() + PAUSE
    gate.pause(PAUSE)
    for number, at in enumerate(await moments(gate, 8)):
        assert at >= ends + number * INTERVAL


async def test_what_a_pause_comes_upon_goes_at_the_set_pace_after_it() -> None:
    gate = paced()
    waiting = asyncio.create_task(moments(gate, 8))
    await asyncio.sleep(INTERVAL / 2)
    ends = time.monotonic() + PAUSE
    gate.pause(PAUSE)
    late = [at for at in await waiting if at >= ends]
    assert len(late) >= 6  # the first went before it; on a slow machine perhaps another
    for number, at in enumerate(late):
        assert at >= ends + number * INTERVAL


@pytest.mark.parametrize("pause", [0, PAUSE])
async def test_without_a_pace_all_go_once_a_pause_is_over(pause: float) -> None:
    gate = Gate(None, Random(0))
    began = time.monotonic()
    gate.pause(pause)
    went = await moments(gate, 50)
    assert min(went) >= began + pause
    assert max(went) < began + pause + 50 * INTERVAL
