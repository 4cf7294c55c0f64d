"""What the operator writes, as an API server takes it, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from control_plane import ControlPlane
from memory_serve import Guest, Serve, guests
from operator_course import REASON, resource, rollout
from operator_process import condition
from operator_world import World, wired

from embedfleet.resources import parse_manifests
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.asking import plan_on_kubernetes
from embedfleet_operator.cluster.api import FIELD_MANAGER, Api
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.rendering.manifests import MANAGED_BY

pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(300),
]

FLEET = resource(
    "Fleet", "guest", existingCluster={"dashboard": "http://NAMESPACE:8265", "serveHost": "x"}
)
PLANNED = parse_manifests(
    "{apiVersion: embedfleet.io/v1alpha1, kind: Fleet, metadata: {name: guest}, spec: "
    "{existingCluster: {dashboard: 'http://127.0.0.1:1', serveHost: x}}}"
)
DOCS = resource("Embedder", "docs", model={"source": "embedded/embedder"}, backend="echo")
SERVICE: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "guest"},
    "spec": {"selector": {"app": "legacy"}, "ports": [{"name": "http", "port": 80}]},
}  # fmt: skip
CLAIM: dict[str, Any] = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights-cache"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Gi"}}},
}  # fmt: skip
CACHE = resource("ModelCache", "weights", source={"hub": {"name": "Qwen/Qwen3-Embedding-0.6B"}})


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await holds():
            await asyncio.sleep(0.5)


async def label(world: World, labels: dict[str, str]) -> None:
    """Give the Service these labels and no others."""
    live = await world.get("Service", "guest")
    await world.api.replace({**live, "metadata": {**live["metadata"], "labels": labels}})


@pytest.mark.parametrize("note", ["a" * 5000, "检索相关段落" * 300, "🙂" * 1024])
async def test_a_note_of_any_length_becomes_an_event(plane: ControlPlane, note: str) -> None:
    name = f"note-{len(note)}-here"
    async with World.of(plane, name) as world, wired(plane) as wire:
        await world.create(FLEET)
        await Actor(Api(wire.send), Store(), "me").say(
            await world.get("Fleet", "guest"), "Start", note
        )
        (event,) = (await world.api.list_all(kind_of("Event"), name)).items
        kept = event["note"].removesuffix(" ...")
        assert note.startswith(kept)
        # Nothing that fits is left out.
        assert 1020 - 3 <= len(kept.encode()) <= 1020


async def test_a_service_of_others_is_left_alone_until_it_is_handed_over(
    plane: ControlPlane,
) -> None:
    serve = Serve()
    async with rollout(plane, "service-here", connect=guests(Guest(serve))) as (world, wire):
        await world.create(SERVICE)
        before = await world.get("Service", "guest")
        foreseen = await asyncio.to_thread(
            plan_on_kubernetes, PLANNED, str(plane.kubeconfig()), world.namespace
        )
        assert "Fleet/guest: not accepted\n    Service/guest: there already" in foreseen
        await world.create(FLEET, DOCS)

        async def says(reason: str) -> bool:
            return condition(await world.get("Fleet", "guest"), "Accepted")[1] == reason

        await until(lambda: says("NameTaken"))
        assert "Service/guest: there already" in str((await world.get("Fleet", "guest"))["status"])
        await wire.quiet(5)
        assert await world.get("Service", "guest") == before
        assert await world.get("Deployment", "guest-edge") == {}
        assert serve.puts == 0
        await label(world, dict((MANAGED_BY,)))
        await until(lambda: says("Valid"))
        (owner,) = (await world.get("Service", "guest"))["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Fleet", "guest")


async def test_a_claim_of_others_keeps_its_data(plane: ControlPlane) -> None:
    async with rollout(plane, "claim-here") as (world, wire):
        await world.create(CLAIM)
        before = await world.get("PersistentVolumeClaim", "weights-cache")
        await world.create(CACHE)

        async def refused() -> bool:
            found = condition(await world.get("ModelCache", "weights"), "Accepted")
            return found[:2] == ("False", "NameTaken")

        await until(refused)
        await wire.quiet(2)
        assert await world.get("PersistentVolumeClaim", "weights-cache") == before
        assert (await world.api.list_all(kind_of("Job"), world.namespace)).items == []


async def test_what_was_made_is_known_without_its_label(plane: ControlPlane) -> None:
    async with rollout(plane, "label-here") as (world, wire):
        await world.create(FLEET, DOCS)

        async def labelled() -> bool:
            labels = (await world.get("Service", "guest")).get("metadata", {}).get("labels", {})
            return MANAGED_BY in labels.items()

        await until(labelled)
        await wire.quiet(5)
        await label(world, {})
        await until(labelled)
        # One entry that applied: what is said no more would stay in one that created.
        managed = (await world.get("Service", "guest"))["metadata"]["managedFields"]
        own = [each["operation"] for each in managed if each["manager"] == FIELD_MANAGER]
        assert own == ["Apply"]
