"""What the batcher adds to an engine that takes no time: latency of one caller, rate of many."""

from __future__ import annotations

import asyncio
import sys
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

import numpy as np

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.packing import PackedBatch
from embedfleet.batching.planner import Limits
from embedfleet.batching.steps import YieldPoint
from embedfleet.messages import Float32Array

LIMITS = Limits(
    max_batch_tokens=4_096,
    max_interactive_tokens=1_024,
    max_queued_tokens=1_000_000,
    max_queued_items=20_000,
)
ROUNDS = 5
QUERY = np.arange(1, 17, dtype=np.int64)


def instant(batch: PackedBatch, yield_point: YieldPoint | None) -> Float32Array:
    return np.zeros((batch.num_sequences, 1_024), np.float32)


async def latencies(batcher: Batcher, calls: int) -> np.ndarray:
    seconds = np.empty(calls)
    for call in range(calls):
        started = perf_counter()
        await batcher.submit([QUERY])
        seconds[call] = perf_counter() - started
    return seconds


async def rate(batcher: Batcher, callers: int, calls: int) -> float:
    started = perf_counter()
    await asyncio.gather(*(latencies(batcher, calls) for _ in range(callers)))
    return callers * calls / (perf_counter() - started)


async def handover(calls: int) -> np.ndarray:
    """What two threads and an event loop cost without any batcher."""
    loop = asyncio.get_running_loop()
    waiting: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

    def answer() -> None:
        while (future := waiting.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    thread = Thread(target=answer)
    thread.start()
    seconds = np.empty(calls)
    for call in range(calls):
        started = perf_counter()
        future: asyncio.Future[None] = loop.create_future()
        waiting.put(future)
        await future
        seconds[call] = perf_counter() - started
    waiting.put(None)
    thread.join()
    return seconds


async def main(calls: int) -> None:
    batcher = Batcher(instant, LIMITS, name="instant")
    batcher.start()
    await latencies(batcher, 200)
    rounds = [(await handover(calls), await latencies(batcher, calls)) for _ in range(ROUNDS)]
    bare, ours = (min(np.median(part) for part in side) for side in zip(*rounds, strict=True))
    p99 = min(np.percentile(ours, 99) for _, ours in rounds)
    items = max([await rate(batcher, 64, max(calls // 20, 1)) for _ in range(ROUNDS)])
    await batcher.close()
    print(f"the quietest of {ROUNDS} rounds of {calls} calls each")
    print(f"a bare hand-over between threads:  p50 {1e6 * bare:.1f} us")
    print(f"one caller, one sequence:          p50 {1e6 * ours:.1f} us, p99 {1e6 * p99:.1f} us")
    print(f"64 callers, one sequence:          {items:,.0f} items/s")
    print(f"batcher_overhead: p50_us {1e6 * ours:.1f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000))
