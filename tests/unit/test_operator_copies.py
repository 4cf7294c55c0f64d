"""The operator's copy of the cluster and its queue: late, doubled and reordered events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from embedfleet_operator.cluster.api import Listing
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.cluster.work import WorkQueue
from embedfleet_operator.rendering import Manifest

FLEET = kind_of("Fleet")


def fleet(version: int, uid: str = "1", name: str = "f", namespace: str = "a") -> Manifest:
    return {
        "apiVersion": FLEET.api_version,
        "kind": "Fleet",
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version),
            "managedFields": [{}],
        },
    }  # fmt: skip


def versions(store: Store) -> list[int]:
    return [int(each["metadata"]["resourceVersion"]) for each in store.of("Fleet")]


PUT, DROP = Store.put, Store.drop


@pytest.mark.parametrize(
    ("events", "changes", "kept"),
    [
        ([(PUT, fleet(5))], [True], [5]),
        ([(PUT, fleet(5)), (PUT, fleet(5))], [True, False], [5]),
        ([(PUT, fleet(6)), (PUT, fleet(5))], [True, False], [6]),
        ([(PUT, fleet(5)), (DROP, fleet(6))], [True, True], []),
        ([(PUT, fleet(5)), (DROP, fleet(6)), (DROP, fleet(6))], [True, True, False], []),
        # An answer to a write, or an event, that comes after the deletion.
        ([(DROP, fleet(6)), (PUT, fleet(5))], [False, False], []),
        ([(PUT, fleet(4)), (DROP, fleet(6)), (PUT, fleet(5))], [True, True, False], []),
        # Another of its name.
        ([(PUT, fleet(5)), (PUT, fleet(7, "2")), (DROP, fleet(6))], [True, True, False], [7]),
        ([(PUT, fleet(5)), (DROP, fleet(6)), (PUT, fleet(7, "2"))], [True, True, True], [7]),
        # Out of the selector and in it again: the same object.
        ([(PUT, fleet(5)), (DROP, fleet(6)), (PUT, fleet(7))], [True, True, True], [7]),
        ([(PUT, fleet(5)), (PUT, fleet(7)), (DROP, fleet(6))], [True, True, False], [7]),
        ([(PUT, fleet(9)), (PUT, fleet(10))], [True, True], [10]),
    ],
    ids=[
        "new", "doubled", "late", "deleted", "deleted-twice", "only-late", "late-after-deletion",
        "late-deletion", "again", "relabelled", "relabelled-late", "as-numbers",
    ],
)  # fmt: skip
def test_events_in_any_order(events: list[Any], changes: list[bool], kept: list[int]) -> None:
    store = Store()
    assert [apply(store, found) for apply, found in events] == changes
    assert versions(store) == kept


def test_what_nobody_reads_is_not_kept() -> None:
    store = Store()
    store.put(fleet(5))
    assert "managedFields" not in (store.get("Fleet", "a", "f") or {})["metadata"]


def test_a_list_tells_what_is_new_other_or_gone() -> None:
    store = Store()
    for name, version in (("same", 1), ("other", 2), ("gone", 3)):
        store.put(fleet(version, name, name))
    store.put(fleet(4, "far", "far", namespace="b"))
    items = [
        fleet(1, "same", "same"), fleet(7, "other", "other"), fleet(8, "new", "new"),
    ]  # fmt: skip
    told = store.replace(FLEET, "a", Listing(items, "9"))
    assert sorted(each["metadata"]["name"] for each in told) == ["gone", "new", "other"]
    assert [each["metadata"]["name"] for each in store.of("Fleet")] == [
        "new", "other", "same", "far",
    ]  # fmt: skip
    assert store.synced(FLEET, "a")
    assert not store.synced(FLEET, "b")


def test_an_old_list_is_known_by_what_was_seen() -> None:
    store = Store()
    store.replace(FLEET, "", Listing([], "5"))
    store.put(fleet(9))
    assert store.is_stale(FLEET, Listing([], "8"))
    assert not store.is_stale(FLEET, Listing([], "9"))
    store.drop(fleet(12))
    assert store.is_stale(FLEET, Listing([], "11"))


def test_a_kind_that_is_not_there_has_been_listed_and_does_not_exist() -> None:
    store = Store()
    assert not store.exists("RayService")
    told = store.replace(kind_of("RayService"), "", None)
    assert (told, store.exists("RayService")) == ([], False)
    assert store.synced(kind_of("RayService"))


class Work:
    """Notes what is worked on; each key may wait for its gate, and fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = 0
        self.errors: list[str] = []
        self.again: float | None = None

    async def __call__(self, key: str) -> float | None:
        assert key not in self.running
        self.begun.append(key)
        self.running.add(key)
        await self.gate.wait()
        self.running.discard(key)
        if self.fails:
            self.fails -= 1
            raise ValueError(key)
        return self.again

    def failed(self, key: str, error: Exception) -> None:
        self.errors.append(f"{key}: {error}")


async def until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def drained(work: Work, *keys: str, workers: int = 2) -> WorkQueue[str]:
    queue = WorkQueue(work, work.failed, settle_seconds=0.01)
    tasks = [asyncio.create_task(queue.run()) for _ in range(workers)]
    for key in keys:
        queue.add(key)
    try:
        await until(lambda: len(work.begun) >= len(set(keys)) and queue.idle)
    finally:
        for task in tasks:
            task.cancel()
    return queue


async def test_a_key_that_is_added_often_is_worked_on_once() -> None:
    work = Work()
    await drained(work, "a", "b", "a", "a")
    assert sorted(work.begun) == ["a", "b"]


async def test_what_happens_meanwhile_is_worked_on_once_more() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work, work.failed, settle_seconds=0.01)
    tasks = [asyncio.create_task(queue.run()) for _ in range(3)]
    queue.add("a")
    await until(lambda: work.begun == ["a"])
    for _ in range(5):
        queue.add("a")
    work.gate.set()
    await until(lambda: work.begun == ["a", "a"] and queue.idle)
    for task in tasks:
        task.cancel()


async def test_a_failure_is_told_and_tried_again() -> None:
    work = Work()
    work.fails = 2
    queue = WorkQueue(work, work.failed, settle_seconds=0.01)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    await until(lambda: len(work.begun) == 3)
    assert work.errors == ["a: a", "a: a"]
    task.cancel()


async def test_news_do_not_wait_for_what_is_due_later() -> None:
    work = Work()
    work.again = 3600.0
    queue = WorkQueue(work, work.failed, settle_seconds=0.01)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    await until(lambda: work.begun == ["a"] and queue.idle)
    queue.add("a")
    await until(lambda: work.begun == ["a", "a"])
    task.cancel()


async def test_a_crash_ends_the_worker() -> None:
    class Crash(BaseException):
        pass

    async def work(key: str) -> None:
        raise Crash

    queue = WorkQueue(work, lambda key, error: None, settle_seconds=0.0)
    queue.add("a")
    with pytest.raises(Crash):
        await queue.run()
