"""What the batcher adds to an engine that takes no time: latency of one caller, rate of many."""

from __future__ import annotations

import asyncio
import sys
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


async def main(calls: int) -> None:
    batcher = Batcher(instant, LIMITS, name="instant")
    batcher.start()
    await latencies(batcher, 200)
    seconds = 1e6 * await latencies(batcher, calls)
    p50, p99 = np.percentile(seconds, [50, 99])
    items = await rate(batcher, callers=64, calls=max(calls // 20, 1))
    await batcher.close()
    print(f"one caller, one sequence:  p50 {p50:.1f} us, p99 {p99:.1f} us, {calls} calls")
    print(f"64 callers, one sequence:  {items:,.0f} items/s")
    print(f"batcher_overhead: p50_us {p50:.1f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
