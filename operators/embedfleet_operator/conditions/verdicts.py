"""Verdicts into conditions: when each began, and that nothing changes without a cause.

A condition keeps the time of its last change of status, so the same observation gives the same
bytes however often it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from embedfleet_operator.conditions.reasons import REASONS, Observation, Reason
from embedfleet_operator.crds.status import Condition, Status, Truth

__all__ = [
    "Refusal",
    "Verdict",
    "accepted",
    "began",
    "false",
    "is_stuck",
    "settle",
    "standing",
    "true",
    "unknown",
]

STUCK_AFTER: Final = timedelta(minutes=15)
"""Longer than an 8B model takes from a cold disk on a node that has to be started first."""

_MAX_MESSAGE_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a resource is not accepted.

    Attributes:
        message: The field, its value, the limit and the next move.
    """

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds now, without its history."""

    status: Truth
    reason: Reason
    message: str


def true(reason: Reason, message: str = "") -> Verdict:
    """Say that a condition holds; without a message the reason's own text is it."""
    return Verdict(Truth.TRUE, reason, message or REASONS[reason])


def false(reason: Reason, message: str = "") -> Verdict:
    """Say that a condition does not hold."""
    return Verdict(Truth.FALSE, reason, message or REASONS[reason])


def unknown(reason: Reason, message: str = "") -> Verdict:
    """Say that it is not known whether a condition holds."""
    return Verdict(Truth.UNKNOWN, reason, message or REASONS[reason])


def accepted(refusal: Refusal | None, advice: str = "") -> Verdict:
    """Say whether a spec is accepted: why not, or what it had better say."""
    if refusal is not None:
        return false(refusal.reason, refusal.message)
    return true(Reason.VALID, f"{REASONS[Reason.VALID]} {advice}".rstrip())


def began(previous: Status, kind: Observation, status: Truth, now: datetime) -> datetime:
    """Tell since when a condition has had a status: since now, if it had another."""
    for condition in previous.conditions or ():
        if condition.type == kind and condition.status is status:
            return condition.last_transition_time
    return now.replace(microsecond=0)


def standing(previous: Status, kind: Observation) -> Verdict | None:
    """Give a verdict as it was last written; None before there is one."""
    for condition in previous.conditions or ():
        if condition.type == kind:
            return Verdict(condition.status, Reason(condition.reason), condition.message)
    return None


def is_stuck(previous: Status, ready: Verdict, now: datetime) -> bool:
    """Tell whether something has been starting for too long."""
    if ready.status is not Truth.FALSE or ready.reason is not Reason.STARTING:
        return False
    return now - began(previous, Observation.READY, Truth.FALSE, now) > STUCK_AFTER


def settle(
    verdicts: Mapping[Observation, Verdict], previous: Status, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Write every condition, with the time at which it took its status."""
    return tuple(
        Condition(
            type=str(kind),
            status=verdicts[kind].status,
            observed_generation=generation,
            last_transition_time=began(previous, kind, verdicts[kind].status, now),
            reason=str(verdicts[kind].reason),
            message=_cut(verdicts[kind].message),
        )
        for kind in Observation
    )


def _cut(message: str) -> str:
    if len(message) <= _MAX_MESSAGE_CHARACTERS:
        return message
    return message[: _MAX_MESSAGE_CHARACTERS - 3] + "..."
