"""Interactive work runs between two layers of a bulk step, and bulk goes on all the same."""

import asyncio
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.planner import Limits
from embedfleet.errors import OutOfMemory
from embedfleet.messages import Priority

LIMITS = Limits(
    max_batch_tokens=32,
    max_interactive_tokens=8,
    max_queued_tokens=4_000,
    max_queued_items=400,
)
NUM_LAYERS = 4
BULK_ID = 1  # sequences that start with it are bulk in these tests


def ids(*values):
    return np.array(values, np.int64)


def bulk_text(num_tokens=32):
    return ids(*[BULK_ID] * num_tokens)


class Layered:
    """An engine of a few layers that notes what it does; a bulk step can be held at two of them."""

    def __init__(self, hold_at=0, hold_again_at=None, cramped=False):
        self.events, self.cramped = [], cramped
        self.held, self.go_on, self.finish = (threading.Event() for _ in range(3))
        self.holds = {hold_at: self.go_on, hold_again_at: self.finish}

    def __call__(self, batch, yield_point):
        if batch.token_ids[0] != BULK_ID:
            if self.cramped and yield_point is None:
                raise OutOfMemory("There is no room beside the bulk step.")
            self.events.append(f"query of {batch.num_tokens}, nested: {yield_point is None}")
            return self.rows(batch)
        for layer in range(NUM_LAYERS):
            if layer in self.holds:
                self.held.set()
                self.holds[layer].wait(30)
            yield_point()
            self.events.append(f"layer {layer}")
        return self.rows(batch)

    def rows(self, batch):
        return np.diff(batch.cu_seqlens).astype(np.float32)


@asynccontextmanager
async def started(run):
    batcher = Batcher(run, LIMITS, name="test")
    batcher.start()
    try:
        yield batcher
    finally:
        run.go_on.set()
        run.finish.set()
        await batcher.close()


async def held_bulk(batcher, engine, *texts):
    task = asyncio.create_task(batcher.submit(texts or [bulk_text()], priority=Priority.BULK))
    await asyncio.to_thread(engine.held.wait, 30)
    return task


async def queue(*calls):
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def until(reached):
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.001)


async def test_a_query_waits_for_a_layer_and_not_for_the_step():
    engine = Layered(hold_at=1)
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        [query] = await queue(batcher.submit([ids(5, 5)]))
        engine.go_on.set()
        assert (await query).rows.tolist() == [2]
        assert (await bulk).rows.tolist() == [32]
        assert batcher.stats().preemptions == 1
    assert engine.events == [
        "layer 0",
        "query of 2, nested: True",
        "layer 1",
        "layer 2",
        "layer 3",
    ]


async def test_a_query_is_answered_while_the_bulk_step_still_runs():
    engine = Layered(hold_at=0, hold_again_at=1)
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        [query] = await queue(batcher.submit([ids(5)]))
        engine.go_on.set()
        assert (await query).rows.tolist() == [1]
        assert not bulk.done()
        engine.finish.set()
        assert (await bulk).rows.tolist() == [32]


async def test_one_short_step_a_layer_so_that_bulk_goes_on():
    engine = Layered()
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        queries = await queue(*(batcher.submit([ids(5, 5, 5)]) for _ in range(9)))
        engine.go_on.set()
        await asyncio.gather(bulk, *queries)
    nested = "query of 6, nested: True"
    assert engine.events == [
        *(nested, "layer 0", nested, "layer 1", nested, "layer 2", nested, "layer 3"),
        "query of 3, nested: False",
    ], "at most 8 tokens between two layers"


async def test_bulk_does_not_overtake_bulk_inside_a_step():
    engine = Layered()
    async with started(engine) as batcher:
        first = await held_bulk(batcher, engine)
        [second] = await queue(batcher.submit([bulk_text(9)], priority=Priority.BULK))
        engine.go_on.set()
        await asyncio.gather(first, second)
        assert batcher.stats().preemptions == 0
    assert engine.events == [f"layer {layer}" for layer in range(NUM_LAYERS)] * 2


async def test_a_long_interactive_request_waits_as_bulk_ahead_of_longer_ones():
    engine = Layered()
    async with started(engine) as batcher:
        first = await held_bulk(batcher, engine, *[bulk_text()] * 6)
        [long] = await queue(batcher.submit([ids(*[5] * 9)]))
        engine.go_on.set()
        await asyncio.gather(first, long)
        assert batcher.stats().preemptions == 0
    assert "query of 9, nested: False" in engine.events


async def test_a_step_that_nobody_waits_for_stops_at_its_next_layer():
    engine = Layered(hold_at=1)
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        bulk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        engine.go_on.set()
        await until(lambda: batcher.stats().abandoned == 1)
        assert (await batcher.submit([ids(5)])).rows.tolist() == [1]
        assert batcher.stats().running_tokens == 0
        batcher.check_health()
    assert engine.events == ["layer 0", "query of 1, nested: False"]


async def test_a_step_goes_on_for_the_callers_that_still_wait():
    engine = Layered()
    async with started(engine) as batcher:
        [hold] = await queue(batcher.submit([bulk_text()], priority=Priority.BULK))
        await asyncio.to_thread(engine.held.wait, 30)
        gone, stays = await queue(
            batcher.submit([bulk_text(9)], priority=Priority.BULK),
            batcher.submit([bulk_text(10)], priority=Priority.BULK),
        )
        engine.held.clear()
        engine.go_on.set()
        await hold
        gone.cancel()
        assert (await stays).rows.tolist() == [10]
        assert batcher.stats().abandoned == 0


async def test_the_step_prepared_ahead_forgets_a_cancelled_caller():
    """Two full steps wait: the second is prepared at the first's first layer."""
    engine = Layered(hold_at=1)
    async with started(engine) as batcher:
        first = await held_bulk(batcher, engine)
        second, third = await queue(
            batcher.submit([bulk_text(32)], priority=Priority.BULK),
            batcher.submit([bulk_text(31)], priority=Priority.BULK),
        )
        engine.go_on.set()
        await first
        second.cancel()
        assert (await third).rows.tolist() == [31]
        stats = batcher.stats()
        assert (stats.queued_items, stats.queued_tokens) == (0, 0)


async def test_a_query_without_memory_beside_bulk_runs_after_it():
    engine = Layered(cramped=True)
    async with started(engine) as batcher:
        bulk = await held_bulk(batcher, engine)
        queries = await queue(batcher.submit([ids(5)]), batcher.submit([ids(6, 6)]))
        engine.go_on.set()
        await bulk
        answered = await asyncio.gather(*queries)
        assert [submitted.rows.tolist() for submitted in answered] == [[1], [2]]
        assert not any(submitted.errors for submitted in answered)
        assert batcher.stats().preemptions == 1, "not tried again at every layer"
    assert engine.events[-1] == "query of 3, nested: False"
