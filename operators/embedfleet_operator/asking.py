"""What applying manifests would do to a fleet on Kubernetes, asked before it is done.

The manifests are laid over a copy of what the cluster holds, and the operator's own decision is
made on that: the plan that is printed is the one that would be followed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiClient

from embedfleet.errors import InvalidManifest, Unavailable
from embedfleet.resources import Manifests
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.acting.fleets import Fleets
from embedfleet_operator.cluster.api import Api, ApiError
from embedfleet_operator.cluster.kinds import WATCHED, kind_of
from embedfleet_operator.cluster.transport import credentials, transport
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.crds.status import FleetStatus
from embedfleet_operator.deciding.decide import Decision
from embedfleet_operator.observing.judging import fleet_names, fleet_of
from embedfleet_operator.planning.durations import told
from embedfleet_operator.rendering import KubeRayFeatures, Manifest, Target
from embedfleet_operator.reporting.reports import previous
from embedfleet_operator.settings import IMAGE

__all__ = ["plan_on_kubernetes"]


def plan_on_kubernetes(manifests: Manifests, kubeconfig: str, namespace: str) -> str:
    """Say what the operator would do.

    Args:
        manifests: What would be applied; models that are not in them stay as they are.
        kubeconfig: File with credentials.
        namespace: Of manifests that name none.

    Raises:
        InvalidManifest: There is no such fleet.
        Unavailable: The API server does not answer, or does not let the asker read.
    """
    try:
        return asyncio.run(_plan(manifests, kubeconfig, namespace))
    except (ApiError, OSError) as error:
        raise Unavailable(
            f"The API server cannot be asked: {error}. Check the kubeconfig, and that its user may "
            "read what fleets are made of."
        ) from error


async def _plan(manifests: Manifests, kubeconfig: str, namespace: str) -> str:
    async with ApiClient(await credentials(kubeconfig)) as client:
        # Nothing but reads gets through, whatever is decided.
        api = Api(transport(client), _refuse)
        given = [_raw(each, namespace) for each in manifests.resources()]
        namespace = next((each["metadata"]["namespace"] for each in given), namespace)
        store = Store()
        for kind in WATCHED:
            try:
                store.replace(kind, namespace, await api.list_all(kind, namespace))
            except ApiError as error:
                if error.status != 404:
                    raise
                store.replace(kind, namespace, None)
        kind = kind_of("CustomResourceDefinition")
        definition = await api.get(kind, "", "rayservices.ray.io")
        before = fleet_names(store.of("Fleet", namespace))
        targets = {name: _target(store, namespace, name, definition) for name in before}
        left = [fleet_of(live, before) for live in _live(store, given)]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for each in given:
            _overlay(store, each, now)
        texts = []
        for name in _fleets_touched(store, given, namespace, left):
            target = targets.get(name) or _target(store, namespace, name, definition)
            fleets = Fleets(api, store, Environment(target, definition), Actor(api, store, ""))
            decision = await fleets.foresee(namespace, name)
            fleet = store.get("Fleet", namespace, name) or {}
            texts.append(_written(decision, previous(FleetStatus, fleet)))
        return "\n".join(texts) or "No fleet is touched."


def _written(decision: Decision, status: FleetStatus) -> str:
    lines = [f"{ref}: not accepted\n    {why}" for ref, why in decision.refused.items()]
    return "\n".join(filter(None, (told(decision.plan, status), *lines)))


def _refuse() -> None:
    raise RuntimeError("planning must not write")


def _raw(resource: Any, namespace: str) -> Manifest:
    raw: Manifest = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["metadata"].setdefault("namespace", namespace)
    raw.pop("status", None)
    return raw


def _live(store: Store, given: Iterable[Manifest]) -> Iterator[Manifest]:
    """Yield the models and routes that manifests would change."""
    for raw in given:
        metadata = raw["metadata"]
        live = store.get(raw["kind"], metadata["namespace"], metadata["name"])
        if live is not None and raw["kind"] not in ("Fleet", "ModelCache"):
            yield live


def _overlay(store: Store, raw: Manifest, now: str) -> None:
    """Put a manifest in the place of the resource it would change, or of one made now."""
    metadata = raw["metadata"]
    live = store.get(raw["kind"], metadata["namespace"], metadata["name"])
    if live is None:
        fresh = {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}
        live = {**raw, "metadata": {**metadata, **fresh, "resourceVersion": "0"}}
    version = str(int(live["metadata"]["resourceVersion"]) + 1)
    changed = {**live["metadata"], "resourceVersion": version}
    store.put({**live, "spec": raw["spec"], "metadata": changed})


def _fleets_touched(
    store: Store, given: Iterable[Manifest], namespace: str, left: Iterable[str]
) -> list[str]:
    """Name the fleets that may change; `left` are those that models are in until now."""
    names = fleet_names(store.of("Fleet", namespace))
    found: dict[str, None] = {}
    for raw in given:
        if raw["kind"] == "Fleet":
            # What belongs to whom, and who may use a Ray cluster, rests on all of them.
            found |= dict.fromkeys([raw["metadata"]["name"], *names])
        elif raw["kind"] == "ModelCache":
            found |= dict.fromkeys(names)
        elif name := fleet_of(raw, names):
            found[name] = None
        else:
            raise InvalidManifest(
                f"spec.fleet of {raw['kind']}/{raw['metadata']['name']} leads to no Fleet of "
                f"namespace {namespace}; it has {', '.join(names) or 'none'}. Name one of them.",
                field="spec.fleet",
            )
    return list(found | dict.fromkeys(filter(None, left)))


def _target(store: Store, namespace: str, name: str, definition: Manifest | None) -> Target:
    """See the cluster as its operator does, from what that operator has made."""
    target = Target(
        image=IMAGE,
        kuberay=KubeRayFeatures.of_crd(definition) if definition else KubeRayFeatures(),
    )
    fleet = store.get("Fleet", namespace, name) or {}
    edge = store.get("Deployment", namespace, f"{name}-edge")
    if edge is not None and not fleet.get("spec", {}).get("image"):
        (container,) = edge["spec"]["template"]["spec"]["containers"]
        target = replace(target, image=container["image"])
    host = str(fleet.get("status", {}).get("endpoint", "")).rpartition(":")[0]
    domain = host.partition(".svc.")[2]
    return replace(target, cluster_domain=domain) if domain else target
