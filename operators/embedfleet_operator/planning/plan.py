"""What applying a fleet's manifests would do to what runs, before it is done.

Applications are judged by the platform's own table; this adds the cluster around them and the edge
in front. It compares live objects, which others write to as well, so it looks only at what this
operator says and never at what the API server or KubeRay add.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from embedfleet.rendering.edge import CONFIG_FILE, MAP_FILE
from embedfleet.rendering.plan import Change, Impact, Plan
from embedfleet.rendering.plan import plan as plan_applications
from embedfleet.rendering.serve import ServeConfig
from embedfleet_operator.planning.cluster import cluster_changes
from embedfleet_operator.rendering.manifests import Manifest
from embedfleet_operator.rendering.rayservice import told_config

__all__ = ["awaited", "plan"]

_EDGE_ROLLS: Final = (
    "The edge's pods are replaced one by one; open connections drain and clients reconnect."
)
_PORT_MOVES: Final = "Nothing restarts, but the old port is closed: clients must call the new one."
_EDGE_STARTS: Final = "The edge's pods start; nothing that runs is touched."


def plan(
    observed: Sequence[Manifest],
    desired: Sequence[Manifest],
    *,
    serve: tuple[ServeConfig | None, ServeConfig] | None = None,
    immutable: Collection[str] = (),
) -> Plan:
    """Compare the live objects of a fleet with those that are wanted.

    Args:
        observed: As the API server returns them, those of this fleet only; none before the first.
        desired: As rendered.
        serve: What Serve runs and what it is to run, on a cluster that has no RayService.
        immutable: Applications of Accepted models: their vector contract must not change.
    """
    before, after = _find(observed, "RayService"), _find(desired, "RayService")
    running, wanted = serve or (told_config(before), told_config(after))
    applications = plan_applications(running, wanted or {}, immutable=immutable)
    # What Serve reads only at start is in the head's pod as a hash, and judged with the cluster.
    changes = [each for each in applications.changes if each.resource != "Cluster"]
    if running is not None:
        fleet = f"Fleet/{_find(desired, 'Service')['metadata']['name']}"
        cluster = cluster_changes(fleet, before["spec"], after["spec"]) if before and after else ()
        changes = [*cluster, *_edge_changes(fleet, observed, desired), *changes]
    touched = {change.resource for change in changes}
    unchanged = tuple(each for each in applications.unchanged if each not in touched)
    return Plan(tuple(changes), unchanged)


def awaited(change: Plan, deployed: Mapping[str, Mapping[str, Any]], wanted: ServeConfig) -> Plan:
    """Add to a plan what KubeRay was told and Serve does not run yet: neither is done.

    Args:
        change: What is to be written.
        deployed: The configuration that each application runs, by name.
        wanted: What Serve is to run. What it has never heard of is left out: it starts.
    """
    if not deployed:
        return change
    running = {**wanted, "applications": list(deployed.values())}
    known = {each.resource for each in change.changes}
    found = [
        each
        for each in plan_applications(running, wanted).changes
        if each.resource not in known and each.impact is not Impact.START
    ]
    waiting = {each.resource for each in found}
    unchanged = tuple(each for each in change.unchanged if each not in waiting)
    return replace(change, changes=(*change.changes, *found), unchanged=unchanged)


def _find(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """Find a fleet's one object of a kind; empty if there is none."""
    return next((each for each in manifests if each["kind"] == kind), {})


def _edge_changes(
    fleet: str, observed: Sequence[Manifest], desired: Sequence[Manifest]
) -> Iterator[Change]:
    if not _find(observed, "Deployment"):
        yield Change(fleet, "edge", None, "edge", Impact.START, _EDGE_STARTS)
        return
    old, new = (_find(each, "ConfigMap").get("data", {}) for each in (observed, desired))
    rolls = Impact.ROLL_REPLICAS
    if old.get(MAP_FILE) != new[MAP_FILE]:
        names = (_names(old.get(MAP_FILE, "")), _names(new[MAP_FILE]))
        yield Change(fleet, "names of models", *names, rolls, _EDGE_ROLLS)
    if old.get(CONFIG_FILE) != new[CONFIG_FILE]:
        yield Change(fleet, "spec.grpc, spec.tls", "edge", "edge", rolls, _EDGE_ROLLS)
    pod, wanted = (_edge_pod(each) for each in (observed, desired))
    for field, value in wanted.items():
        if pod[field] != value:
            yield Change(fleet, field, pod[field], value, rolls, _EDGE_ROLLS)
    old, new = (_find(each, "Service").get("spec", {}) for each in (observed, desired))
    was, is_now = ([port["port"] for port in each.get("ports", ())] for each in (old, new))
    if was != is_now:
        yield Change(fleet, "spec.grpc.port", was, is_now, Impact.RECONFIGURE, _PORT_MOVES)


def _names(apps_map: str) -> list[str]:
    return [line.partition(" ")[0] for line in apps_map.splitlines()]


def _edge_pod(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Give what the edge's pods have of the fleet's spec, by field."""
    pod = _find(manifests, "Deployment")["spec"]["template"]["spec"]
    return {
        "spec.image": pod["containers"][0].get("image"),
        "spec.imagePullSecrets": [each["name"] for each in pod.get("imagePullSecrets", ())],
        "spec.serviceAccountName": pod.get("serviceAccountName"),
    }
