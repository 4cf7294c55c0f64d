"""Callers in, rows out: order, packing, admission, deadlines, cancellation, shutdown."""

import asyncio
import gc
import threading
import weakref
from contextlib import asynccontextmanager
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.planner import Limits
from embedfleet.errors import (
    DeadlineExceeded,
    EngineError,
    Overloaded,
    TooLarge,
    Unavailable,
)
from embedfleet.messages import Priority

LIMITS = Limits(
    max_batch_tokens=32,
    max_interactive_tokens=16,
    max_queued_tokens=400_000,
    max_queued_items=40_000,
)
BULK = Priority.BULK


def ids(*values):
    return np.array(values, np.int64)


def segments(batch):
    return np.split(batch.token_ids, batch.cu_seqlens[1:-1])


def sums(batch, yield_point=None):
    """Row: the sum of the sequence's ids and of its prefix's, and how many there are."""
    parts = segments(batch)
    prefixes, own = parts[: batch.num_prefixes], parts[batch.num_prefixes :]
    whole = [
        np.concatenate([prefixes[parent], part]) if parent >= 0 else part
        for parent, part in zip(batch.prefix_of, own, strict=True)
    ]
    return np.array([[part.sum(), len(part)] for part in whole], np.float32)


class Gate:
    """An engine that waits, before it computes, until it is opened."""

    def __init__(self):
        self.entered, self.opened, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, batch, yield_point):
        self.batches.append(sorted(part.tolist() for part in segments(batch)))
        self.entered.set()
        self.opened.wait(30)
        return sums(batch)


@asynccontextmanager
async def started(run, limits=LIMITS):
    batcher = Batcher(run, limits, name="test")
    batcher.start()
    try:
        yield batcher
    finally:
        if isinstance(run, Gate):
            run.opened.set()
        await batcher.close()


async def occupied(batcher, gate):
    """Let the engine hold one sequence, so that everything else waits."""
    task = asyncio.create_task(batcher.submit([ids(1)], priority=BULK))
    await asyncio.to_thread(gate.entered.wait, 30)
    return task


async def queue(batcher, *calls):
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


sequences = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1, max_size=12)
requests = st.lists(
    st.tuples(sequences, st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=5)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(requests=requests, priorities=st.lists(st.sampled_from(Priority), min_size=6, max_size=6))
def test_any_packing_gives_each_sequence_its_own_row(requests, priorities):
    async def submit_all():
        async with started(sums) as batcher:
            return await asyncio.gather(
                *(
                    batcher.submit(
                        [ids(*values) for values in texts],
                        prefix=None if prefix is None else ids(*prefix),
                        priority=priority,
                    )
                    for (texts, prefix), priority in zip(requests, priorities, strict=False)
                )
            )

    for (texts, prefix), submitted in zip(requests, asyncio.run(submit_all()), strict=True):
        whole = [(prefix or []) + values for values in texts]
        assert submitted.rows.tolist() == [[sum(values), len(values)] for values in whole]
        assert submitted.rows.dtype == np.float32
        assert not submitted.errors


async def test_rows_of_one_number_keep_their_shape():
    async with started(lambda batch, _: sums(batch)[:, 0]) as batcher:
        submitted = await batcher.submit([ids(1), ids(2, 2)] * 20)
    assert submitted.rows.tolist() == [1, 4] * 20


async def test_times_add_up_to_the_wait():
    gate = Gate()
    async with started(gate) as batcher:
        began = monotonic()
        await occupied(batcher, gate)
        [task] = await queue(batcher, batcher.submit([ids(2)]))
        queued_at = monotonic()
        await asyncio.sleep(0.05)
        waited = monotonic() - queued_at
        gate.opened.set()
        submitted = await task
        total = monotonic() - began
    # Measured on both sides of the same wait, so true however slow the machine is.
    assert submitted.queue_seconds >= waited
    assert 0 <= submitted.compute_seconds <= total
    assert submitted.queue_seconds + submitted.compute_seconds <= total


async def test_a_waiting_query_runs_before_waiting_bulk_and_bulk_by_length():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(
            batcher,
            batcher.submit([ids(2, 2), ids(*[3] * 30), ids(4), ids(*[5] * 31)], priority=BULK),
            batcher.submit([ids(9)]),
        )
        gate.opened.set()
        await asyncio.gather(first, *rest)
    assert gate.batches == [
        [[1]],
        [[9]],
        [[4], [5] * 31],
        [[2, 2], [3] * 30],
    ], "the longest first, and gaps filled with what fits"


async def test_a_shared_prefix_goes_once_into_a_step():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(
            batcher,
            *(batcher.submit([ids(n)] * 2, prefix=ids(7, 7), priority=BULK) for n in (2, 3)),
        )
        gate.opened.set()
        await asyncio.gather(first, *rest)
    assert gate.batches[1] == [[2], [2], [3], [3], [7, 7]]


@pytest.mark.parametrize("count", [1, 3], ids=["single", "batch"])
async def test_a_full_queue_says_when_to_come_back(count):
    limits = Limits(32, 16, max_queued_tokens=8, max_queued_items=40)
    gate = Gate()
    async with started(gate, limits) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(2)] * 8))
        with pytest.raises(Overloaded, match="8 of 8 tokens") as refused:
            await batcher.submit([ids(3)] * count)
        gate.opened.set()
        await asyncio.gather(first, *rest)
        assert (await batcher.submit([ids(3)])).rows.tolist() == [[3, 1]], "there is room again"
    assert refused.value.retry_after_seconds > 0


async def test_what_can_never_fit_is_not_told_to_retry():
    async with started(sums, Limits(32, 16, 100, 10)) as batcher:
        with pytest.raises(TooLarge, match="11 items"):
            await batcher.submit([ids(1)] * 11)


async def test_a_deadline_already_past_is_refused():
    async with started(sums) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([ids(1)], deadline=monotonic() - 1)


async def test_a_deadline_ends_the_wait_and_the_work_never_runs():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        with pytest.raises(DeadlineExceeded, match="0 of 2 sequences"):
            await batcher.submit([ids(2), ids(3)], deadline=monotonic() + 0.02)
        assert batcher.stats().queued_items == 0
        gate.opened.set()
        await first
    assert gate.batches == [[[1]]]


async def test_a_cancelled_caller_s_work_is_dropped():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        kept, dropped = await queue(
            batcher, batcher.submit([ids(2)]), batcher.submit([ids(3)] * 5, priority=BULK)
        )
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        assert batcher.stats().queued_items == 1
        gate.opened.set()
        await asyncio.gather(first, kept)
    assert gate.batches == [[[1]], [[2]]]


async def test_ten_thousand_cancelled_calls_leave_nothing_behind():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        alive = []
        for _ in range(20):
            arrays = [ids(i) for i in range(500)]
            alive += [weakref.ref(array) for array in arrays]
            tasks = await queue(batcher, *(batcher.submit([array]) for array in arrays))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del arrays, tasks, task
        await asyncio.sleep(0)  # the loop lets go of the last round
        stats = batcher.stats()
        gc.collect()
        assert not any(ref() is not None for ref in alive)
        assert (stats.queued_items, stats.queued_tokens) == (0, 0)
        gate.opened.set()
        await first
    assert gate.batches == [[[1]]]


async def test_other_limits_apply_from_the_next_step():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(*[2] * 8)] * 4, priority=BULK))
        batcher.reconfigure(Limits(8, 8, 400, 40))
        gate.opened.set()
        await asyncio.gather(first, *rest)
    assert [len(batch) for batch in gate.batches] == [1, 1, 1, 1, 1]


async def test_stats_count_what_waits_and_what_was_done():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(2, 2)] * 3, prefix=ids(7)))
        before = batcher.stats()
        gate.opened.set()
        await asyncio.gather(first, *rest)
        after = batcher.stats()
    assert (before.queued_items, before.queued_tokens, before.running_tokens) == (3, 7, 1)
    assert before.tokens_per_second is None
    assert before.oldest_wait_seconds > 0
    assert (after.queued_items, after.queued_tokens, after.running_tokens) == (0, 0, 0)
    assert (after.steps, after.sequences, after.tokens, after.failed_sequences) == (2, 4, 8, 0)
    assert after.tokens_per_second > 0
    assert after.healthy


async def test_closing_finishes_what_was_admitted_and_refuses_more():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(2)] * 100, priority=BULK))
        [closing] = await queue(batcher, batcher.close())
        with pytest.raises(Unavailable, match="shutting down"):
            await batcher.submit([ids(3)])
        gate.opened.set()
        await closing
        assert (await first).rows.tolist() == [[1, 1]]
        assert (await rest[0]).rows.tolist() == [[2, 1]] * 100
        with pytest.raises(Unavailable, match="not running"):
            batcher.check_health()
    assert not [t for t in threading.enumerate() if t.name == "engine-test"]


async def test_closing_without_draining_answers_everyone():
    gate = Gate()
    async with started(gate) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(2)]))
        [closing] = await queue(batcher, batcher.close(drain=False))
        for task in (first, *rest):
            with pytest.raises(Unavailable):
                await task
        gate.opened.set()
        await closing
    assert gate.batches == [[[1]]]


async def test_a_batcher_that_was_not_started_takes_no_work():
    batcher = Batcher(sums, LIMITS, name="test")
    with pytest.raises(Unavailable, match="not started"):
        await batcher.submit([ids(1)])
    with pytest.raises(Unavailable):
        batcher.check_health()
    await batcher.close()


@pytest.mark.parametrize(
    ("given", "prefix"),
    [([], None), ([ids()], None), ([ids(1), ids()], None), ([ids(1)], ids())],
    ids=["no sequence", "empty sequence", "one empty of two", "empty prefix"],
)
async def test_nothing_to_compute_is_a_bug(given, prefix):
    async with started(sums) as batcher:
        with pytest.raises(ValueError, match="This is a bug"):
            await batcher.submit(given, prefix=prefix)
        assert (await batcher.submit([ids(1)])).rows.tolist() == [[1, 1]], "and it still works"


async def test_a_dead_thread_answers_everyone_and_fails_the_health_check(caplog):
    gate = Gate()

    def dying(batch, yield_point):
        gate(batch, yield_point)
        raise SystemExit("the device fell off the bus")

    async with started(dying) as batcher:
        first = await occupied(batcher, gate)
        rest = await queue(batcher, batcher.submit([ids(2)]))
        gate.opened.set()
        for task in (first, *rest):
            with pytest.raises(Unavailable, match=r"fell off the bus.* another replica"):
                await task
        with pytest.raises(EngineError, match="thread died"):
            batcher.check_health()
        with pytest.raises(Unavailable, match="thread died"):
            await batcher.submit([ids(1)])
        assert not batcher.stats().healthy
    assert "the engine's thread died" in caplog.text


async def test_a_step_without_a_sign_of_life_fails_the_health_check():
    gate = Gate()
    limits = Limits(32, 16, 400, 40, stuck_after_seconds=0.01)
    async with started(gate, limits) as batcher:
        batcher.check_health()
        first = await occupied(batcher, gate)
        await asyncio.sleep(0.02)
        with pytest.raises(EngineError, match="no sign of life"):
            batcher.check_health()
        gate.opened.set()
        await first
        batcher.check_health()
