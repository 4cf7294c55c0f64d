"""What is said about a fleet and everything in it: each status from what was seen. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from embedfleet.messages import Role
from embedfleet.rendering.names import PREFIXES, Model
from embedfleet.rendering.plan import Impact, Plan
from embedfleet.resources import ModelRoute
from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.conditions.verdicts import Refusal, Verdict, false, unknown
from embedfleet_operator.crds.status import (
    FleetStatus,
    ModelStatus,
    ResolvedModel,
    RouteStatus,
    Status,
    Truth,
)
from embedfleet_operator.observing.judging import Judged
from embedfleet_operator.observing.seen import Seen
from embedfleet_operator.rendering import Manifest
from embedfleet_operator.rendering.manifests import COMPONENT_LABEL, FLEET_LABEL, RAY
from embedfleet_operator.reporting.fleet import FleetObservation, fleet_status
from embedfleet_operator.reporting.model import ModelObservation, model_status
from embedfleet_operator.reporting.route import RouteObservation, route_status

__all__ = ["model_report", "orphan_statuses", "previous", "statuses"]

S = TypeVar("S", bound=Status)

_REASONS: Final = frozenset(map(str, Reason))
_GROUP_LABEL: Final = "ray.io/group"
_OF_FLEETS: Final = ("fleet", "endpoint", "selector", "served_revision")
"""What is said of a model as long as a fleet serves it."""
_EXISTING: Final[Mapping[str, Mapping[str, Any]]] = {"Ready": {"status": "True"}}
"""A cluster that ran before is expected to answer from the first moment."""


def statuses(
    seen: Seen, refusal: Refusal | None, change: Plan, failure: str = ""
) -> dict[str, Status]:
    """Write the status of a fleet, its models and its routes, by resource.

    Args:
        seen: What is known.
        refusal: Why nothing is done for the fleet; None if something is.
        change: What is not yet made.
        failure: Why it could not be made.
    """
    models = {
        each.ref: model_report(seen, each, change.of(each.ref), refusal) for each in seen.models
    }
    found: dict[str, Status] = dict(models)
    for route in seen.routes:
        found[route.ref] = route_status(_route(seen, route, models), seen.now)
    observed = FleetObservation(
        generation=seen.fleet.generation,
        previous=previous(FleetStatus, seen.fleet.raw),
        refusal=refusal,
        failure=failure,
        cluster=_cluster_conditions(seen),
        edge_pods=_edge_pods(seen.owned),
        serve_answers=seen.serve.answers,
        serve_error=seen.serve.error,
        applications=seen.serve.applications,
        models=models,
        pools=_pools(seen),
        endpoint=_endpoint(seen),
    )
    found[seen.fleet.ref] = fleet_status(seen.fleet.resource, observed, change, seen.now)
    return found


def orphan_statuses(
    models: Iterable[Judged[Model]], routes: Iterable[Judged[ModelRoute]], now: datetime
) -> dict[str, Status]:
    """Write the statuses of what belongs to no fleet: nothing of it can run."""
    found: dict[str, Status] = {}
    for each in models:
        before = previous(ModelStatus, each.raw).model_copy(update=dict.fromkeys(_OF_FLEETS))
        # Serve is known to run nothing for it.
        observed = ModelObservation(each.generation, before, each.refusal, serve_answers=True)
        found[each.ref] = model_status(each.resource, observed, Impact.NO_CHANGE, now)
    for route in routes:
        seen = RouteObservation(route.generation, previous(RouteStatus, route.raw), route.refusal)
        found[route.ref] = route_status(seen, now)
    return found


def model_report(
    seen: Seen, each: Judged[Model], impact: Impact, refusal: Refusal | None
) -> ModelStatus:
    """Write the status of one model of a fleet."""
    served = seen.served.get(each.ref)
    model, runs = each.resource or served, served or each.resource
    app = seen.serve.applications.get(_application(each))
    golden = seen.goldens.get(each.ref)
    verdict, verification = seen.verified.get(each.ref, (None, None))
    facts = ModelStatus(
        fleet=seen.fleet.name,
        endpoint=_endpoint(seen) or None,
        selector=f"{FLEET_LABEL}={seen.fleet.name},{COMPONENT_LABEL}={RAY}",
        contract_hash=golden.contract_hash if golden else None,
        verification=verification,
        served_revision=runs.spec.revision if runs and app and app.pids else None,
    )
    observed = ModelObservation(
        generation=each.generation,
        previous=previous(ModelStatus, each.raw),
        refusal=each.refusal,
        advice=each.advice,
        cached=seen.cached.get(each.ref),
        verified=verdict,
        serve_answers=seen.serve.answers,
        application=app,
        facts=facts,
        unanswered=_unanswered(seen, refusal),
    )
    return model_status(model, observed, impact, seen.now)


def previous(kind: type[S], raw: Mapping[str, Any]) -> S:
    """Read a status as it was last written; one that others wrote counts as none."""
    try:
        found = kind.model_validate_json(json.dumps(raw.get("status") or {}))
    except ValidationError:
        return kind()
    known = all(each.reason in _REASONS for each in found.conditions or ())
    return found if known else kind()


def _application(each: Judged[Model]) -> str:
    role = Role.EMBEDDER if each.raw["kind"] == "Embedder" else Role.RERANKER
    return f"{PREFIXES[role]}-{each.name}"


def _unanswered(seen: Seen, refusal: Refusal | None) -> Verdict:
    """Say why Serve does not answer: it may not have to yet."""
    if refusal is not None:
        return false(Reason.HELD, f"{seen.fleet.ref} is not accepted: {refusal.message}")
    serving = _cluster_conditions(seen).get("Ready", {}).get("status") == "True"
    return unknown(Reason.UNREACHABLE, seen.serve.error) if serving else false(Reason.STARTING)


def _route(
    seen: Seen, route: Judged[ModelRoute], models: Mapping[str, ModelStatus]
) -> RouteObservation:
    resolved = []
    if route.resource is not None:
        spec = route.resource.spec
        names = dict.fromkeys(name for rule in spec.rules for _, name in rule.mentions())
        for name in names:
            status = models.get(f"{spec.target_kind}/{name}")
            if status is not None:
                ready = any(
                    each.type == Observation.READY and each.status is Truth.TRUE
                    for each in status.conditions or ()
                )
                resolved.append(
                    ResolvedModel(name=name, contract_hash=status.contract_hash, ready=ready)
                )
    return RouteObservation(
        route.generation,
        previous(RouteStatus, route.raw),
        route.refusal,
        tuple(resolved),
        seen.fleet.name,
        _endpoint(seen),
        route.advice,
    )


def _cluster_conditions(seen: Seen) -> Mapping[str, Mapping[str, Any]]:
    fleet = seen.fleet.resource
    if fleet is not None and fleet.spec.existing_cluster is not None:
        return _EXISTING
    service = next((each for each in seen.owned if each["kind"] == "RayService"), {})
    conditions = service.get("status", {}).get("conditions", ())
    return {each["type"]: each for each in conditions}


def _edge_pods(owned: Sequence[Manifest]) -> tuple[int, int]:
    deployment = next((each for each in owned if each["kind"] == "Deployment"), None)
    if deployment is None:
        return 0, 0
    available = deployment.get("status", {}).get("availableReplicas") or 0
    return available, deployment["spec"].get("replicas", 1)


def _pools(seen: Seen) -> dict[str, tuple[int, int]]:
    """Count nodes by pool: pods that run, and those that KubeRay was asked for."""
    fleet = seen.fleet.resource
    if fleet is None:
        return {}
    there = Counter(
        pod["metadata"].get("labels", {}).get(_GROUP_LABEL)
        for pod in seen.nodes
        if pod.get("status", {}).get("phase") == "Running"
    )
    wanted: Counter[str] = Counter()
    for cluster in seen.clusters:
        for group in cluster["spec"].get("workerGroupSpecs") or ():
            wanted[group["groupName"]] += group.get("replicas") or 0
    return {pool.name: (there[pool.name], wanted[pool.name]) for pool in fleet.spec.pools}


def _endpoint(seen: Seen) -> str:
    fleet = seen.fleet.resource
    if fleet is None:
        return ""
    namespace = seen.fleet.raw["metadata"]["namespace"]
    return f"{fleet.name}.{namespace}.svc.{seen.target.cluster_domain}:{fleet.spec.grpc.port}"
