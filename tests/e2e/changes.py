"""Changes of a fleet under traffic: what `embedfleet plan` says before, and what then happens.

What happens is told by replicas' processes: which of them stay, go and come.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from control_plane import wait
from e2e.chain import DOCS, FLEET, NAMESPACE, settled
from e2e.faults import Fault, Note
from e2e.world import HEAD, World

__all__ = ["CHANGES"]

SECONDS = 900.0
"""A second cluster starts beside the first, on the cores that serve traffic."""
EMBEDFLEET = Path(sys.executable).with_name("embedfleet")
MORE = {"kind": "Embedder", "metadata": {"name": "more"}, "spec": {
    "model": DOCS["spec"]["model"], "placement": {"cpus": 0.1},
}}  # fmt: skip


def _of(resource: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**resource, "spec": {**resource["spec"], **spec}}


def _embedder(**spec: Any) -> dict[str, Any]:
    return _of(DOCS, scaling={**DOCS["spec"]["scaling"], "minReplicas": 2}, **spec)


def _planned(world: World, resource: dict[str, Any]) -> str:
    """Ask the command line of which class a change would be."""
    text = yaml.safe_dump({"apiVersion": "embedfleet.io/v1alpha1", **resource})
    plane = world.cluster.plane
    done = subprocess.run(
        [EMBEDFLEET, "plan", "--file=-", "--kubernetes", f"--kubeconfig={plane.kubeconfig()}",
         f"--namespace={NAMESPACE}"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name = f"{resource['kind']}/{resource['metadata']['name']}"
    found = re.search(rf"^{name}: (\w+)$", done.stdout, re.M)
    assert found, done.stdout
    return found[1]


def _replicas(world: World) -> Mapping[str, frozenset[int]]:
    """List the processes of each model's replicas."""
    return {
        model: frozenset(each.pid for each in world.processes(f"ServeReplica:{model}"))
        for model in ("emb-docs", "emb-more", "rrk-relevance")
    }


def _heads(world: World) -> set[str]:
    return {each["metadata"]["name"] for each in world.pods(HEAD)}


def _seen(before: Mapping[str, frozenset[int]], after: Mapping[str, frozenset[int]]) -> str:
    """Say of which class a change was."""
    stayed = {model for model in before if before[model] <= after[model]}
    if stayed == set(before):
        return "Start" if after["emb-more"] else "Reconfigure"
    if any(before[model] & after[model] for model in set(before) - stayed):
        return "some replicas"
    return "NewCluster" if "rrk-relevance" not in stayed else "RestartApp"


def _changed(resource: dict[str, Any]) -> Fault:
    """Apply a resource and wait until the whole fleet has settled with it."""
    what = f"{resource['kind'].lower()}/{resource['metadata']['name']}"

    def change(world: World) -> Note:
        before, heads = _replicas(world), _heads(world)
        planned = _planned(world, resource)
        world.kubectl.apply(resource)
        if planned == "NewCluster":
            wait(lambda: not heads & _heads(world), "the old head to go", SECONDS)
        wait(lambda: settled(world.kubectl, what) and world.whole(), "the change", SECONDS)
        seen = _seen(before, _replicas(world))
        assert seen == planned, f"planned {planned}, seen {seen}"
        return lambda _: f"{planned}, as planned"

    return change


def _second(world: World) -> Note:
    note = _changed(MORE)(world)
    assert note is not None
    world.kubectl("delete", "embedder/more", "--timeout=60s")
    return note


CHANGES: Mapping[str, Fault] = {
    "another default instruction": _changed(
        _embedder(instruction={"default": "Given a question, find its answer"})
    ),
    "a second embedder": _second,
    "another token limit": _changed(_embedder(maxTokens=2048)),
    "a larger head": _changed(_of(FLEET, head={"cpus": 1, "memoryGib": 3})),
}
