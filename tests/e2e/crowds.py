"""Others who use a fleet at the same time: more than it can serve, or not as they should."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import numpy as np
from e2e.chain import ENDPOINT, program
from e2e.faults import Fault, Note
from e2e.load import Load
from e2e.traffic import Tally
from e2e.usage import resident_bytes
from e2e.world import World

__all__ = ["CROWDS"]

IDLE_SECONDS = 30.0
MEASURED_SECONDS = 20.0
OVERLOAD_SECONDS = 180.0
TIMES_CAPACITY = 10
STAY_SECONDS = 60.0
PARTS: Mapping[str, tuple[str, ...]] = {
    "edge and HAProxy": ("haproxy",), "replicas": ("ServeReplica",), "proxies": ("ProxyActor",),
}  # fmt: skip


def _memory(world: World) -> Mapping[str, float]:
    """Measure what stands in a call's way, in MiB."""
    return {
        part: resident_bytes(world.cluster.node, *words) / 2**20 for part, words in PARTS.items()
    }


def _told(*measured: Mapping[str, float]) -> str:
    parts = (f"{part} {', '.join(f'{each[part]:.0f}' for each in measured)}" for part in PARTS)
    return f"MiB before, then, afterwards: {'; '.join(parts)}"


def _capacity(world: World) -> float:
    """Measure how many calls a second are answered where some always wait."""
    with program(world.cluster, "load.py", ENDPOINT, "0") as printed:
        time.sleep(MEASURED_SECONDS)
    load = Load(**json.loads(printed[0]))
    return load.answered / load.seconds


def _overload(world: World) -> Note:
    """Offer many times what the fleet can do, at lower priority than the traffic."""
    idle = time.monotonic()
    time.sleep(IDLE_SECONDS)
    busy = time.monotonic()
    capacity = _capacity(world)
    before, start = _memory(world), time.monotonic()
    with program(world.cluster, "load.py", ENDPOINT, str(TIMES_CAPACITY * capacity)) as printed:
        time.sleep(OVERLOAD_SECONDS)
        during, end = _memory(world), time.monotonic()
    load, after = Load(**json.loads(printed[0])), _memory(world)
    assert not load.other, load.other

    def note(tally: Tally) -> str:
        calm, late = (
            float(np.percentile(tally.between(*span), 99)) for span in ((idle, busy), (start, end))
        )
        return (
            f"capacity {capacity:.1f} calls/s of 64 texts; of {load.sent} such calls "
            f"{load.answered} answered, {load.refused} refused with a hint, {load.waiting} waiting "
            f"at the end; p99 of the traffic {1000 * late:.0f} ms, {1000 * calm:.0f} ms before "
            f"({late / calm:.1f} times); {_told(before, during, after)}"
        )

    return note


def _visited(kind: str) -> Fault:
    def visit(world: World) -> Note:
        before = _memory(world)
        with program(world.cluster, "bad_clients.py", kind, ENDPOINT) as printed:
            time.sleep(STAY_SECONDS)
            during = _memory(world)
        after = _memory(world)
        return lambda _: f"{printed[0]} connections; {_told(before, during, after)}"

    return visit


CROWDS: Mapping[str, Fault] = {
    "bulk calls, 10 times what is possible, for 180 s": _overload,
    "1,000 streams that say nothing": _visited("idle"),
    "200 clients that never read": _visited("deaf"),
    "20 clients that send garbage": _visited("garbage"),
}
