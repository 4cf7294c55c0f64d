"""A failed step: who gets the error, who gets a row, and when the engine counts as broken."""

import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.planner import Limits
from embedfleet.errors import EngineError, NonFiniteResult, OutOfMemory, Unavailable

LIMITS = Limits(
    max_batch_tokens=1_000,
    max_interactive_tokens=1_000,
    max_queued_tokens=4_000,
    max_queued_items=400,
    max_failures=2,
)
BAD = 13


def ids(*values):
    return np.array(values, np.int64)


def rows(batch):
    starts = batch.cu_seqlens[batch.num_prefixes : -1]
    return batch.token_ids[starts].astype(np.float32)


def failing_on(is_bad, error):
    """An engine that raises if a batch holds what it cannot compute."""

    def run(batch, yield_point):
        if is_bad(batch):
            raise error
        return rows(batch)

    return run


@asynccontextmanager
async def started(run):
    batcher = Batcher(run, LIMITS, name="test")
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()


@pytest.mark.parametrize("bad", [(), (0,), (6,), (3, 4), (0, 2, 4, 6), tuple(range(7))])
@pytest.mark.parametrize("kind", [NonFiniteResult, OutOfMemory])
async def test_only_the_guilty_get_the_error(bad, kind):
    run = failing_on(lambda batch: BAD in batch.token_ids, kind("a component is NaN"))
    async with started(run) as batcher:
        submitted = await batcher.submit([ids(BAD if i in bad else i + 100) for i in range(7)])
        batcher.check_health()
        assert batcher.stats().failed_sequences == len(bad)
    assert {i: type(error) for i, error in submitted.errors.items()} == dict.fromkeys(bad, kind)
    assert len(submitted.rows) == 7
    for i in set(range(7)) - set(bad):
        assert submitted.rows[i] == i + 100


async def test_a_batch_too_large_for_the_device_is_computed_in_parts():
    run = failing_on(lambda batch: batch.num_sequences > 2, OutOfMemory("no room for the batch"))
    async with started(run) as batcher:
        submitted = await batcher.submit([ids(i) for i in range(9)], prefix=ids(7, 7))
    assert submitted.rows.tolist() == list(range(9))
    assert not submitted.errors


async def test_a_failed_call_s_arrays_are_gone_before_its_halves_run():
    scratch = []

    def run(batch, yield_point):
        assert not [ref for ref in scratch if ref() is not None]
        activations = np.zeros(100)
        scratch.append(weakref.ref(activations))
        try:
            if batch.num_sequences > 1:
                raise RuntimeError("out of device memory")
        except RuntimeError as error:
            raise OutOfMemory("no room for the batch") from error
        return rows(batch)

    async with started(run) as batcher:
        submitted = await batcher.submit([ids(i) for i in range(4)])
    assert not submitted.errors
    assert len(scratch) == 7


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (EngineError("The kernel failed. Restart."), "The kernel failed"),
        (RuntimeError("illegal memory access"), "RuntimeError: illegal memory access"),
    ],
    ids=["its own error", "any other"],
)
async def test_another_failure_is_everyone_s_and_is_counted(error, message, caplog):
    broken = [True]
    async with started(failing_on(lambda _: broken[0], error)) as batcher:
        submitted = await batcher.submit([ids(1), ids(2)])
        batcher.check_health()
        assert set(submitted.errors) == {0, 1}
        assert all(type(e) is EngineError and message in str(e) for e in submitted.errors.values())
        assert submitted.rows.shape == (2, 0)
        cause = submitted.errors[0].__cause__
        assert cause is (error if isinstance(error, RuntimeError) else None)
        assert submitted.errors[0].__traceback__ is None

        broken[0] = False
        assert (await batcher.submit([ids(3)])).rows.tolist() == [3]

        broken[0] = True
        await batcher.submit([ids(1)])
        batcher.check_health()  # the success between them starts the count anew
        await batcher.submit([ids(1)])
        assert message in batcher.stats().last_error
        with pytest.raises(EngineError, match="2 steps in a row"):
            batcher.check_health()
        with pytest.raises(Unavailable, match=r"2 steps in a row.* another replica"):
            await batcher.submit([ids(1)])
        assert not batcher.stats().healthy
    assert ("failed unexpectedly" in caplog.text) == isinstance(error, RuntimeError)


async def test_a_wrong_number_of_rows_is_a_bug_and_not_a_result():
    async with started(lambda batch, _: rows(batch)[1:]) as batcher:
        submitted = await batcher.submit([ids(1), ids(2)])
    assert "1 rows for 2 sequences" in str(submitted.errors[0])
