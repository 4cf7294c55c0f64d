"""One roll-out in two parts, and where it comes to when nothing goes wrong.

A fleet that KubeRay is to build and that never starts, one on a Ray cluster that ran before, models
of both kinds, a route, and a model that no fleet serves.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import control_plane
import kuberay
import operator_rights
from control_plane import ControlPlane
from go_tools import missing
from memory_serve import FAILS, Guest, Serve, guests
from operator_world import Fault, Wire, World, fixed_point, no_fault, operating, wired

from embedfleet_operator.acting.fleets import Connect
from embedfleet_operator.crds import KINDS, definition
from embedfleet_operator.settings import Settings

__all__ = [
    "FIRST",
    "REASON",
    "REST_SECONDS",
    "Course",
    "change",
    "comes_to_rest",
    "prepared",
    "resource",
    "rests",
    "rollout",
    "undisturbed",
]

REASON = control_plane.missing() or missing("helm", "kuberay-operator")
"""Why nothing of this can be run here; empty where it can."""

REST_SECONDS = 5.0
"""Longer than the time between two looks at a fleet that moves."""

EMBEDDED = {"source": "embedded/embedder"}


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name}, "spec": spec}


def rule(model: str) -> list[dict[str, Any]]:
    return [{"name": "all", "targets": [{"model": model}]}]


GUEST = {"dashboard": "http://NAMESPACE:8265", "serveHost": "NAMESPACE"}
FIRST = (
    resource("Fleet", "built", pools=[{"name": "cpu", "minNodes": 1}]),
    resource("Fleet", "guest", existingCluster=GUEST),
    # An echo has no golden outputs, so nobody is called for them.
    resource("Embedder", "docs", fleet="guest", model=EMBEDDED, backend="echo"),
    resource("Embedder", "code", fleet="built", model=EMBEDDED),
    resource("Embedder", "stray", fleet="none", model=EMBEDDED),
    resource("Reranker", "relevance", fleet="guest", model={"source": "embedded/reranker"},
             backend="echo"),
    resource("ModelRoute", "passages", fleet="guest", targetKind="Embedder", rules=rule("docs")),
)  # fmt: skip


async def change(world: World) -> None:
    """Change a model, add one, break two, remove one."""
    await world.change("Embedder", "docs", {"instruction": {"default": "Find it."}})
    await world.create(resource("Embedder", "more", fleet="guest", model=EMBEDDED, backend="echo"))
    await world.change("Reranker", "relevance", {"instruction": {"default": FAILS}})
    await world.create(
        resource("Embedder", "lost", fleet="built", model=EMBEDDED, placement={"pools": ["gpu"]})
    )
    await world.delete("Embedder", "code")


@dataclass(frozen=True)
class Course:
    """What a roll-out that nothing disturbs comes to, after each of its two parts."""

    first: dict[str, Any]
    second: dict[str, Any]
    writes: int


@contextmanager
def prepared() -> Iterator[ControlPlane]:
    """Start an API server with every kind installed, KubeRay's too, and the chart's rights."""
    with (
        tempfile.TemporaryDirectory(prefix="ef-faults-") as folder,
        control_plane.control_plane(Path(folder)) as running,
    ):
        running.install([*(definition(kind) for kind in KINDS), *kuberay.definitions()])
        operator_rights.install(running)
        yield running


@asynccontextmanager
async def rollout(
    plane: ControlPlane,
    name: str,
    fault: Fault = no_fault,
    connect: Connect | None = None,
    resync_seconds: float = 300.0,
) -> AsyncIterator[tuple[World, Wire]]:
    """Run an operator in a namespace of its own."""
    settings = Settings((name,), name, identity="operator", resync_seconds=resync_seconds)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World.of(plane, name))
        wire = await stack.enter_async_context(wired(plane, fault))
        connect = connect or guests(Guest(Serve()))
        await stack.enter_async_context(operating(wire, connect, settings))
        yield world, wire


def undisturbed(plane: ControlPlane) -> Course:
    """Roll out without a fault."""

    async def run() -> Course:
        async with rollout(plane, "undisturbed") as (world, wire):
            await world.create(*FIRST)
            first = await _settled(world, wire, "Embedder/docs", "Settled")
            await change(world)
            second = await _settled(world, wire, "Reranker/relevance", "UpdateFailed")
            return Course(first, second, wire.writes)

    return asyncio.run(run())


async def _settled(world: World, wire: Wire, ref: str, reason: str) -> dict[str, Any]:
    """Wait until nothing moves and a resource says a reason."""
    while True:
        await wire.quiet(REST_SECONDS)
        found = await fixed_point(world)
        conditions = found[ref]["status"]["conditions"]
        if reason in [each["reason"] for each in conditions]:
            return found


async def rests(world: World, wire: Wire, course: Course) -> None:
    """See that nothing is written any more."""
    before = wire.writes
    await asyncio.sleep(REST_SECONDS)
    assert wire.writes == before, [each[2] for each in wire.log[before:]]
    assert await fixed_point(world) == course.second


async def comes_to_rest(
    plane: ControlPlane, course: Course, name: str, fault: Fault, resync_seconds: float = 300.0
) -> None:
    """Roll out under a fault to where it comes without."""
    async with rollout(plane, name, fault, resync_seconds=resync_seconds) as (world, wire):
        await world.create(*FIRST)
        await world.reaches(course.first, wire)
        await change(world)
        await world.reaches(course.second, wire)
        await rests(world, wire, course)
