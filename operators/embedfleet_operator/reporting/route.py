"""The status of a ModelRoute: whether its rules lead somewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.conditions.verdicts import (
    Refusal,
    Verdict,
    accepted,
    false,
    settle,
    true,
)
from embedfleet_operator.crds.status import ResolvedModel, RouteStatus

__all__ = ["RouteObservation", "route_status"]

_NOTHING: Final = RouteStatus()


@dataclass(frozen=True, slots=True)
class RouteObservation:
    """What is known of a route.

    Attributes:
        generation: Of the resource that was read.
        previous: The status as it was last written.
        refusal: Why it is not accepted; None if it is.
        models: Models that its rules name and that exist.
        advice: What its spec had better say, though it is accepted.
    """

    generation: int
    previous: RouteStatus = _NOTHING
    refusal: Refusal | None = None
    models: tuple[ResolvedModel, ...] = ()
    fleet: str = ""
    endpoint: str = ""
    advice: str = ""


def route_status(observed: RouteObservation, now: datetime) -> RouteStatus:
    """Write a route's status."""
    refusal = observed.refusal
    held = false(Reason.HELD, f"Accepted is False: {refusal.message}") if refusal else None
    # Clients would get NOT_FOUND: said here rather than found out by them.
    serving = held or false(Reason.UNSUPPORTED)
    verdicts: dict[Observation, Verdict] = {
        Observation.ACCEPTED: accepted(refusal, observed.advice),
        Observation.CACHED: true(Reason.NOT_NEEDED),
        Observation.VERIFIED: true(Reason.NOT_NEEDED),
        Observation.PROGRESSING: false(Reason.SETTLED),
        Observation.READY: serving,
        Observation.WARM: serving,
        Observation.DEGRADED: false(Reason.HEALTHY),
    }
    hashes = {model.contract_hash for model in observed.models}
    return RouteStatus(
        observed_generation=observed.generation,
        conditions=settle(verdicts, observed.previous, observed.generation, now),
        fleet=observed.fleet or None,
        endpoint=observed.endpoint or None,
        contract_hash=hashes.pop() if len(hashes) == 1 else None,
        models=tuple(sorted(observed.models, key=lambda model: model.name)),
    )
