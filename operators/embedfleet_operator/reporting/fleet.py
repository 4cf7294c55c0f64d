"""The status of a Fleet from its cluster, its edge and the statuses of its models.

Pure: asks nobody. One broken model degrades its fleet and never makes it unready: the others
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from embedfleet.rendering.names import ROUTER
from embedfleet.rendering.plan import Plan
from embedfleet.rendering.serve_state import FAILED, ApplicationStatus
from embedfleet.resources.fleet import Fleet
from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.conditions.verdicts import (
    Refusal,
    Verdict,
    accepted,
    false,
    is_stuck,
    settle,
    true,
    unknown,
)
from embedfleet_operator.crds.status import (
    Condition,
    FleetStatus,
    ModelStatus,
    PoolStatus,
    Truth,
)
from embedfleet_operator.planning.durations import timed

__all__ = ["FleetObservation", "fleet_status"]

_NOTHING: Final = FleetStatus()
_STATE_WARNING: Final = (
    "Without spec.gcsFaultTolerance every replica restarts when the head's pod is lost."
)


@dataclass(frozen=True, slots=True)
class FleetObservation:
    """What is known of a fleet.

    Attributes:
        generation: Of the resource that was read.
        previous: The status as it was last written.
        refusal: Why it is not accepted; None if it is.
        failure: Why the last change could not be made; empty if it could.
        cluster: Conditions of the RayService by type, as KubeRay wrote them.
        edge_pods: Pods of the edge that are available, and that are wanted.
        serve_answers: Whether Serve was reached; if not, `applications` says nothing.
        serve_error: Why it was not reached.
        applications: Every application by name, as Serve sees it.
        models: Statuses of the fleet's models by resource, such as `Embedder/docs`.
        pools: Nodes by pool that are there and that are wanted.
        endpoint: Address that clients call.
    """

    generation: int
    previous: FleetStatus = _NOTHING
    refusal: Refusal | None = None
    failure: str = ""
    cluster: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edge_pods: tuple[int, int] = (0, 0)
    serve_answers: bool = False
    serve_error: str = ""
    applications: Mapping[str, ApplicationStatus] = field(default_factory=dict)
    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    pools: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    endpoint: str = ""


def fleet_status(
    fleet: Fleet | None, observed: FleetObservation, plan: Plan, now: datetime
) -> FleetStatus:
    """Write a fleet's status.

    Args:
        fleet: The resource; None if it cannot be understood.
        observed: What is known of it.
        plan: What is not yet made.
        now: The time.
    """
    verdicts = _verdicts(fleet, observed, plan, now)
    ready = [_condition(each, Observation.READY) for each in observed.models.values()]
    pools = tuple(
        PoolStatus(name=name, nodes=nodes, wanted_nodes=wanted)
        for name, (nodes, wanted) in sorted(observed.pools.items())
    )
    changing, last_changes = timed(
        observed.previous, plan, verdicts[Observation.PROGRESSING].status, now
    )
    return FleetStatus(
        changing=changing,
        last_changes=last_changes,
        observed_generation=observed.generation,
        conditions=settle(verdicts, observed.previous, observed.generation, now),
        endpoint=observed.endpoint or observed.previous.endpoint,
        served_models=sum(each is not None and each.status is Truth.TRUE for each in ready),
        nodes=sum(pool.nodes for pool in pools),
        pools=pools,
    )


def _condition(status: ModelStatus, kind: Observation) -> Condition | None:
    return next((each for each in status.conditions or () if each.type == kind), None)


def _verdicts(
    fleet: Fleet | None, observed: FleetObservation, plan: Plan, now: datetime
) -> dict[Observation, Verdict]:
    ready = _ready(observed)
    return {
        Observation.ACCEPTED: _accepted(fleet, observed.refusal),
        Observation.CACHED: _of_models(observed, Observation.CACHED),
        Observation.VERIFIED: _of_models(observed, Observation.VERIFIED),
        Observation.PROGRESSING: _progressing(observed, ready, plan),
        Observation.READY: ready,
        Observation.WARM: _of_models(observed, Observation.WARM)
        if observed.serve_answers
        else unknown(Reason.UNREACHABLE, observed.serve_error),
        Observation.DEGRADED: _degraded(observed, ready, now),
    }


def _accepted(fleet: Fleet | None, refusal: Refusal | None) -> Verdict:
    keeps = fleet is None or fleet.spec.gcs_fault_tolerance or fleet.spec.existing_cluster
    return accepted(refusal, "" if keeps else _STATE_WARNING)


def _of_models(observed: FleetObservation, kind: Observation) -> Verdict:
    """Say of a fleet what holds for its models; what is not known of one is no fault."""
    lacking = _where(observed, kind, Truth.FALSE)
    if lacking:
        return false(Reason.SOME_MODELS, f"{kind} is False for {', '.join(lacking)}.")
    return true(Reason.ALL_MODELS)


def _where(observed: FleetObservation, kind: Observation, status: Truth) -> list[str]:
    found = []
    for name, model in sorted(observed.models.items()):
        condition = _condition(model, kind)
        if condition is not None and condition.status is status:
            found.append(name)
    return found


def _ready(observed: FleetObservation) -> Verdict:
    if observed.refusal is not None and not observed.cluster:
        return false(Reason.HELD, f"Accepted is False: {observed.refusal.message}")
    if observed.cluster.get("Ready", {}).get("reason") == "InitializingTimeout":
        return false(Reason.TIMED_OUT)
    if not observed.serve_answers:
        # Before KubeRay has found the cluster ready once, silence is to be expected.
        serving = observed.cluster.get("Ready", {}).get("status") == "True"
        return (
            unknown(Reason.UNREACHABLE, observed.serve_error) if serving else false(Reason.STARTING)
        )
    router = observed.applications.get(ROUTER)
    if router is not None and router.status in FAILED:
        return false(Reason.FAILED, router.message)
    if router is None or not router.pids:
        return false(Reason.STARTING)
    if observed.edge_pods[0] == 0:
        return false(Reason.EDGE_MISSING)
    return true(Reason.SERVING, f"Calls to {observed.endpoint} are answered.")


def _progressing(observed: FleetObservation, ready: Verdict, plan: Plan) -> Verdict:
    if ready.reason in (Reason.HELD, Reason.TIMED_OUT, Reason.FAILED):
        return false(ready.reason, ready.message)
    if observed.cluster.get("UpgradeInProgress", {}).get("status") == "True":
        return true(Reason.UPGRADING)
    if plan.changes:
        fields = ", ".join(dict.fromkeys(f"{c.resource} {c.field}".strip() for c in plan.changes))
        return true(Reason.UPDATING, f"{plan.impact.label} is being applied: {fields}.")
    if ready.reason is Reason.UNREACHABLE:
        return unknown(Reason.UNREACHABLE, observed.serve_error)
    if ready.reason is Reason.STARTING:
        return true(Reason.STARTING)
    moving = _where(observed, Observation.PROGRESSING, Truth.TRUE)
    if moving:
        return true(Reason.SOME_MODELS, f"Progressing is True for {', '.join(moving)}.")
    return false(Reason.SETTLED)


def _degraded(observed: FleetObservation, ready: Verdict, now: datetime) -> Verdict:
    if observed.failure:
        return true(Reason.APPLY_FAILED, observed.failure)
    if ready.reason is Reason.UNREACHABLE:
        return unknown(Reason.UNREACHABLE, observed.serve_error)
    if ready.reason in (Reason.TIMED_OUT, Reason.FAILED):
        return true(ready.reason, ready.message)
    if is_stuck(observed.previous, ready, now):
        return true(Reason.STUCK)
    available, wanted = observed.edge_pods
    if ready.reason in (Reason.SERVING, Reason.EDGE_MISSING) and available < wanted:
        text = f"{available} of {wanted} pods of the edge are available: look at its Deployment."
        return true(Reason.EDGE_MISSING, text)
    broken = _where(observed, Observation.DEGRADED, Truth.TRUE)
    if broken:
        return true(Reason.SOME_MODELS, f"Degraded is True for {', '.join(broken)}.")
    return false(Reason.HEALTHY)
