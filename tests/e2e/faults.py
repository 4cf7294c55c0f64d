"""What is done to a fleet under traffic, by name: parts killed, stopped, cut off, starved.

Each ends when the fault is over, and gives what the traffic's calls say of it besides, if anything.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from e2e.chain import traffic
from e2e.memory import Memory
from e2e.traffic import Tally
from e2e.world import HEAD, WORKER, World

__all__ = ["FAULTS", "Fault", "Note", "without_head"]

Note = Callable[[Tally], str]
"""What is said of a fault besides, once its calls are known."""
Fault = Callable[[World], Note | None]

DOWN_SECONDS = 15.0
CUT_SECONDS = 30.0
SLOW_SECONDS = 60.0
FROZEN_SECONDS = 240.0
DELAY_SECONDS, LOSS = 0.1, 0.02
DEADLINE_SECONDS = 1.0
SPARE_BYTES = 64 << 20


def _kill(*words: str, without: str = "unshare") -> Fault:
    return lambda world: world.process(*words, without=without).kill()


def _delete(selector: str) -> Fault:
    return lambda world: world.delete(selector)


def _stop_api(world: World) -> None:
    world.cluster.plane.stop()
    time.sleep(DOWN_SECONDS)
    world.cluster.plane.start()


def _restart_store(world: World) -> None:
    world.cluster.plane.kill_store()
    time.sleep(DOWN_SECONDS)
    world.cluster.plane.start_store()


def _cut_off(world: World) -> None:
    network, link = world.cluster.network, world.link(WORKER)
    network.cut(link)
    time.sleep(CUT_SECONDS)
    network.mend(link)


def _slow_down(world: World) -> Note:
    """Make one worker's link slow while more calls are made, which have little time."""
    link = world.link(WORKER)
    with (
        world.cluster.network.slow(link, DELAY_SECONDS, LOSS),
        traffic(world.cluster, world.expected, DEADLINE_SECONDS) as hurried,
    ):
        time.sleep(SLOW_SECONDS)
    late, sent = len(hurried.failed), hurried.sent
    return lambda _: (
        f"of {sent} more calls with {DEADLINE_SECONDS:g} s each, {late} had no answer by then and "
        f"the longest took {hurried.longest_seconds:.2f} s"
    )


def _freeze(world: World) -> Note:
    """Stop a replica without ending it; Serve's health check has to find out."""
    frozen = world.process("ServeReplica:emb-docs")
    frozen.suspend()
    began = time.monotonic()
    try:
        frozen.wait(FROZEN_SECONDS)
        said = f"ended by Ray {time.monotonic() - began:.0f} s later"
    except psutil.TimeoutExpired:
        frozen.kill()
        said = f"still there {FROZEN_SECONDS:.0f} s later, killed then"
    return lambda _: said


def _starve(world: World) -> Note:
    """Take all memory of a worker pod; whom the kernel ends for that is the kernel's to say."""
    link = world.link(WORKER)
    memory = Memory(link.name)
    before = set(map(int, memory.members.read_text().split()))
    memory.limit(SPARE_BYTES)
    try:
        eater = [sys.executable, Path(__file__).with_name("eater.py"), memory.members]
        code = subprocess.run(eater, check=False).returncode
    finally:
        memory.limit(None)
    ended = len(before - set(map(int, memory.members.read_text().split())))
    return lambda _: (
        f"the kernel ended {ended} of its {len(before)} processes, and who took ({code})"
    )


FAULTS: Mapping[str, Fault] = {
    "one of two replicas": _kill("ServeReplica:emb-docs"),
    "a replica, stopped but not ended": _freeze,
    "HAProxy of an edge pod": _kill("haproxy", "/etc/embedfleet/edge"),
    "HAProxy of a Ray node": _kill("haproxy", "haproxy-serve"),
    "one of two operators": _kill("embedfleet_operator"),
    "KubeRay's operator": _kill("kuberay-operator"),
    "the API server, for 15 s": _stop_api,
    "etcd, for 15 s": _restart_store,
    "Serve's controller": _kill("ServeController"),
    "a worker's raylet": _kill("raylet/raylet", without="--head"),
    "a worker pod": _delete(WORKER),
    "a worker's link, for 30 s": _cut_off,
    "200 ms and 2 % loss on a worker's link, for 60 s": _slow_down,
    "a worker's memory": _starve,
}
without_head = _delete(HEAD)
