"""Where an engine computes two steps at once, interactive work does not wait for bulk at all."""

import asyncio
import os
import sys
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.planner import Limits
from embedfleet.errors import EngineError, Unavailable
from embedfleet.messages import Priority

LIMITS = Limits(
    max_batch_tokens=32,
    max_interactive_tokens=8,
    max_queued_tokens=4_000,
    max_queued_items=400,
)
HELD, FATAL = 1, 2


def ids(*values):
    return np.array(values, np.int64)


class Engine:
    """Holds what begins with `HELD`, dies of what begins with `FATAL`; notes who computes."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()
        self.threads = {}

    def __call__(self, batch, yield_point):
        first = int(batch.token_ids[0])
        self.threads[first] = (threading.get_ident(), os.getpriority(os.PRIO_PROCESS, 0))
        if first == HELD:
            self.entered.set()
            self.opened.wait(30)
            yield_point()
        if first == FATAL:
            raise SystemExit("the device is gone")
        return np.diff(batch.cu_seqlens).astype(np.float32)


@asynccontextmanager
async def started(engine):
    batcher = Batcher(engine, LIMITS, name="test", parallel=True)
    batcher.start()
    try:
        yield batcher
    finally:
        engine.opened.set()
        await batcher.close()


async def held_bulk(batcher, engine):
    task = asyncio.create_task(batcher.submit([ids(HELD)], priority=Priority.BULK))
    await asyncio.to_thread(engine.entered.wait, 30)
    return task


async def test_a_query_is_answered_inside_a_layer_of_a_bulk_step():
    engine = Engine()
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        assert (await batcher.submit([ids(5, 5)])).rows.tolist() == [2]
        stats = batcher.stats()
        assert (stats.preemptions, stats.running_tokens, bulk.done()) == (1, 1, False)
        engine.opened.set()
        assert (await bulk).rows.tolist() == [1]
        assert batcher.stats().running_tokens == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows niceness of threads")
async def test_bulk_gives_way_and_queries_do_not():
    engine = Engine()
    async with started(engine) as batcher:
        await batcher.submit([ids(5)])
        await batcher.submit([ids(6)], priority=Priority.BULK)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    (interactive, niceness), (bulk, niceness_of_bulk) = engine.threads[5], engine.threads[6]
    assert interactive != bulk
    assert (niceness, niceness_of_bulk) == (own, min(own + 10, 19))


async def test_a_long_query_waits_as_bulk():
    engine = Engine()
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        long = asyncio.create_task(batcher.submit([ids(*[5] * 9)]))
        assert (await batcher.submit([ids(6)])).rows.tolist() == [1]
        assert not long.done()
        engine.opened.set()
        assert [(await each).rows.tolist() for each in (bulk, long)] == [[1], [9]]


async def test_closing_finishes_both_lanes():
    engine = Engine()
    batcher = Batcher(engine, LIMITS, name="test", parallel=True)
    batcher.start()
    bulk = await held_bulk(batcher, engine)
    more = asyncio.create_task(batcher.submit([ids(6)], priority=Priority.BULK))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable, match="shutting down"):
        await batcher.submit([ids(5)])
    assert not closing.done()
    engine.opened.set()
    await closing
    assert [(await each).rows.tolist() for each in (bulk, more)] == [[1], [1]]


@pytest.mark.parametrize("priority", list(Priority))
async def test_one_dead_thread_is_the_end_of_both(priority, caplog):
    engine = Engine()
    async with started(engine) as batcher:
        bulk = None if priority is Priority.BULK else await held_bulk(batcher, engine)
        with pytest.raises(Unavailable, match="thread died: SystemExit: the device is gone"):
            await batcher.submit([ids(FATAL)], priority=priority)
        if bulk is not None:
            with pytest.raises(Unavailable, match="thread died"):
                await bulk
        for each in Priority:
            with pytest.raises(Unavailable, match="thread died"):
                await batcher.submit([ids(5)], priority=each)
        with pytest.raises(EngineError, match="Restart the replica"):
            batcher.check_health()
        assert not batcher.stats().healthy
    assert "the engine's thread died" in caplog.text
