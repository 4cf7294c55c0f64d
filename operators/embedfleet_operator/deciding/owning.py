"""Whose a Ray cluster is that ran before: what a fleet puts there deletes everything else. Pure.

The router's settings name the fleet that put them, so the cluster itself tells, by whatever address
it was reached.
"""

from __future__ import annotations

from typing import Final

from embedfleet.rendering.names import full_name
from embedfleet.resources import Fleet
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.observing.seen import Seen, ServeState

__all__ = ["FINALIZER", "intrusion", "others"]

FINALIZER: Final = "embedfleet.io/serve"
"""Holds a fleet until its models are gone from a Ray cluster that outlives it."""


def intrusion(seen: Seen) -> Refusal | None:
    """Say why nothing may be put into the cluster that ran before; None if it may."""
    fleet = seen.fleet.resource
    if fleet is None or fleet.spec.existing_cluster is None:
        return None
    # Set before the first of its models is put anywhere.
    was_here = FINALIZER in (seen.fleet.raw["metadata"].get("finalizers") or ())
    found = others(seen.serve, fleet, was_here=was_here)
    if not found:
        return None
    return Refusal(
        Reason.INVALID,
        f"spec.existingCluster.dashboard is {fleet.spec.existing_cluster.dashboard}: that cluster "
        f"runs {found}. They would be deleted. Give the fleet a cluster of its own, or empty that "
        "one with `serve shutdown`.",
    )


def others(state: ServeState, fleet: Fleet, *, was_here: bool) -> str:
    """Tell what of others' a cluster runs; empty for nothing.

    Args:
        state: What Serve says.
        fleet: Who asks.
        was_here: Whether what bears no full name may be its own, put there by an earlier release.
    """
    if state.strangers:
        return f"applications of others: {', '.join(state.strangers)}"
    running = ", ".join(state.applications)
    if not running or state.fleet == full_name(fleet):
        return ""
    if "/" in state.fleet:
        return f"applications of Fleet {state.fleet}: {running}"
    if was_here and state.fleet in ("", fleet.name):
        return ""
    return f"applications that this fleet has not put there: {running}"
