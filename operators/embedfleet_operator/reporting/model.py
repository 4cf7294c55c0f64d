"""The status of an Embedder or Reranker from what was observed of it.

Pure: asks nobody. A model that is not Accepted, Cached and Verified is kept out of Serve's
configuration, while a version of it that already answers goes on doing so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from embedfleet.rendering.names import Model
from embedfleet.rendering.plan import Impact
from embedfleet.rendering.serve_state import FAILED, ApplicationStatus
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
from embedfleet_operator.crds.status import Failure, ModelStatus, Scale, Truth

__all__ = ["ModelObservation", "may_serve", "model_status"]

_NOTHING: Final = ModelStatus()
_ERROR_NAME: Final = re.compile(r"[A-Za-z]+(?=: )")


@dataclass(frozen=True, slots=True)
class ModelObservation:
    """What is known of a model.

    Attributes:
        generation: Of the resource that was read.
        previous: The status as it was last written.
        refusal: Why it is not accepted; None if it is.
        advice: What its spec had better say, though it is accepted.
        cached: How its ModelCache is; None if it names none.
        verified: How golden outputs came out; None before there are any.
        serve_answers: Whether Serve was reached; if not, `application` says nothing.
        application: The model as Serve sees it; None if Serve does not know it.
        unanswered: Why Serve was not reached.
        facts: Fields that others found out, such as the contract; those unset stay as they were.
    """

    generation: int
    previous: ModelStatus = _NOTHING
    refusal: Refusal | None = None
    advice: str = ""
    cached: Verdict | None = None
    verified: Verdict | None = None
    serve_answers: bool = False
    application: ApplicationStatus | None = None
    unanswered: Verdict | None = None
    facts: ModelStatus = _NOTHING

    @property
    def is_counted(self) -> bool:
        """Whether replicas can be counted: Serve was reached, or has not started anywhere yet."""
        starts = self.unanswered is not None and self.unanswered.reason is Reason.STARTING
        return self.serve_answers or starts


def model_status(
    model: Model | None, observed: ModelObservation, impact: Impact, now: datetime
) -> ModelStatus:
    """Write a model's status.

    Args:
        model: The resource; None if it cannot be understood.
        observed: What is known of it.
        impact: The gravest change of it that is not yet made.
        now: The time.
    """
    verdicts = _verdicts(model, observed, impact, now)
    known = observed.facts.model_dump(exclude_none=True, by_alias=False)
    status = observed.previous.model_copy(
        update={
            **{field: getattr(observed.facts, field) for field in known},
            "observed_generation": observed.generation,
            "conditions": settle(verdicts, observed.previous, observed.generation, now),
        }
    )
    return status.model_copy(update=_counts(observed, now))


def may_serve(status: ModelStatus) -> bool:
    """Tell whether a model belongs into Serve's configuration as its spec says.

    Golden outputs that do not exist yet keep nothing out: they are recorded from what is served.
    """
    held = {condition.type: condition.status for condition in status.conditions or ()}
    return (
        held.get(Observation.ACCEPTED) is Truth.TRUE
        and held.get(Observation.CACHED) is Truth.TRUE
        and held.get(Observation.VERIFIED) in (Truth.TRUE, Truth.UNKNOWN)
    )


def _verdicts(
    model: Model | None, observed: ModelObservation, impact: Impact, now: datetime
) -> dict[Observation, Verdict]:
    gates = {
        Observation.ACCEPTED: accepted(observed.refusal, observed.advice),
        Observation.CACHED: observed.cached or true(Reason.NOT_NEEDED),
        Observation.VERIFIED: observed.verified or unknown(Reason.NO_GOLDEN),
    }
    held = _held(gates)
    if not observed.serve_answers:
        lost = observed.unanswered or unknown(Reason.UNREACHABLE)
        starts = lost.reason is Reason.STARTING
        if starts and held is not None and held.status is Truth.FALSE:
            lost = false(Reason.HELD, held.message)
        return gates | {
            Observation.PROGRESSING: held or (true(Reason.STARTING) if starts else lost),
            Observation.READY: lost,
            Observation.WARM: lost,
            Observation.DEGRADED: lost if lost.status is Truth.UNKNOWN else false(Reason.HEALTHY),
        }
    ready = _ready(observed.application, held)
    return gates | {
        Observation.PROGRESSING: held or _progressing(observed.application, impact),
        Observation.READY: ready,
        Observation.WARM: _warm(observed.application, ready),
        Observation.DEGRADED: _degraded(model, observed, held, now),
    }


def _held(gates: dict[Observation, Verdict]) -> Verdict | None:
    """Name the first gate that is shut; None if the model may serve."""
    for kind, verdict in gates.items():
        if verdict.status is Truth.FALSE:
            if verdict.reason in (Reason.FETCHING, Reason.VERIFYING):
                return true(verdict.reason, verdict.message)
            return false(Reason.HELD, f"{kind} is False ({verdict.reason}): {verdict.message}")
    return None


def _ready(app: ApplicationStatus | None, held: Verdict | None) -> Verdict:
    if app is None:
        return false(Reason.HELD, held.message) if held else false(Reason.STARTING)
    if app.pids:
        return true(Reason.SERVING, f"{len(app.pids)} of {app.target_replicas} replicas answer.")
    if app.status in FAILED:
        return false(Reason.FAILED, app.message)
    if app.status == "RUNNING" and app.target_replicas == 0:
        return true(Reason.SCALED_TO_ZERO)
    return false(Reason.STARTING)


def _warm(app: ApplicationStatus | None, ready: Verdict) -> Verdict:
    if app is not None and app.pids:
        return true(Reason.SERVING, "A replica answers at once.")
    return false(ready.reason, ready.message)


def _progressing(app: ApplicationStatus | None, impact: Impact) -> Verdict:
    if impact is not Impact.NO_CHANGE:
        return true(Reason.UPDATING, f"A change is being applied: {impact.label}.")
    if app is None:
        return true(Reason.STARTING)
    if app.status in FAILED:
        return false(Reason.FAILED, app.message)
    if app.status != "RUNNING":
        return true(Reason.UPDATING if app.pids else Reason.STARTING)
    if len(app.pids) != app.target_replicas:
        return true(Reason.SCALING, f"{len(app.pids)} of {app.target_replicas} replicas answer.")
    return false(Reason.SETTLED)


def _degraded(
    model: Model | None, observed: ModelObservation, held: Verdict | None, now: datetime
) -> Verdict:
    app = observed.application
    if app is not None and app.status in FAILED:
        return true(Reason.UPDATE_FAILED if app.pids else Reason.FAILED, app.message)
    if app is not None and held is not None and held.status is Truth.FALSE:
        return true(Reason.HELD, f"An earlier version answers. {held.message}")
    if is_stuck(observed.previous, _ready(app, held), now):
        return true(Reason.STUCK)
    fewest = model.spec.scaling.min_replicas if model else 0
    if app is not None and app.status == "RUNNING" and len(app.pids) < fewest:
        return true(
            Reason.REPLICAS_MISSING,
            f"{len(app.pids)} replicas answer; spec.scaling.minReplicas is {fewest}. Look for "
            "pending pods, and raise maxNodes of the pool if all its nodes are full.",
        )
    return false(Reason.HEALTHY)


def _counts(observed: ModelObservation, now: datetime) -> dict[str, object]:
    """Count replicas, and keep the last failure and the last change of their number.

    Of a model that was never seen there is none, whichever of it and its fleet was there first.
    """
    if not observed.is_counted:
        last = observed.previous
        return {"replicas": last.replicas or 0, "ready_replicas": last.ready_replicas or 0}
    app = observed.application
    if app is None:
        return {"replicas": 0, "ready_replicas": 0}
    counts: dict[str, object] = {
        "replicas": app.live_replicas,
        "ready_replicas": len(app.pids),
    }
    if app.status in FAILED and app.message:
        counts["last_failure"] = _failure(app, observed.previous.last_failure, now)
    if app.last_scale is not None:
        scale = app.last_scale
        counts["last_scale"] = Scale(
            time=datetime.fromtimestamp(int(scale.timestamp_seconds), UTC),
            from_replicas=scale.before,
            to_replicas=scale.after,
            reason=scale.reason[:1024],
        )
    return counts


def _failure(app: ApplicationStatus, previous: Failure | None, now: datetime) -> Failure:
    name = _ERROR_NAME.match(app.message)
    message = app.message[:4096]
    if previous is not None and previous.message == message:
        return previous
    reason = name.group() if name else app.status.title().replace("_", "")
    return Failure(time=now.replace(microsecond=0), reason=reason, message=message)
