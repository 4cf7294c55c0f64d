"""Whether a model gives its golden outputs, from what Serve says of it.

A version that was refused stays refused after Serve went back to the one before: it is told apart
by a fingerprint that the status keeps, and tried again when anything of it changes. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from embedfleet.golden import Golden, measured
from embedfleet.rendering.serve_state import FAILED, ApplicationStatus
from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.conditions.verdicts import Verdict, false, true, unknown
from embedfleet_operator.crds.status import Condition, ModelStatus, Truth, Verification

__all__ = ["GoldenObservation", "drifted", "fingerprint", "verified"]

_MISMATCH: Final = "GoldenMismatch: "
_HASH_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class GoldenObservation:
    """What is known of a model and its golden outputs.

    Attributes:
        golden: What its replicas are held to; None before there is anything.
        pinned: Whether the spec names it, rather than that it was recorded.
        wanted: Fingerprint of the version as the spec says.
        applied: Fingerprint of the version that Serve was last given; empty if it has none.
        application: The model as Serve sees it, in the same answer as what `applied` was read from.
        previous: The status as it was last written.
        serve_answers: Whether Serve was reached; if not, what was last said goes on to hold.
    """

    golden: Golden | None
    pinned: bool
    wanted: str
    applied: str
    application: ApplicationStatus | None
    previous: ModelStatus
    serve_answers: bool = True


def fingerprint(application: Mapping[str, Any], image: str = "") -> str:
    """Identify what golden outputs judge: arguments, device, image, the outputs and their bound."""
    (deployment,) = application["deployments"]
    actor = deployment.get("ray_actor_options") or {}
    judged = {
        "args": application["args"],
        "golden": (deployment.get("user_config") or {}).get("golden"),
        "image": image,
        "num_gpus": float(actor.get("num_gpus") or 0),
        "label_selector": actor.get("label_selector"),
        "fallback_strategy": actor.get("fallback_strategy"),
    }
    return hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()[
        :_HASH_CHARACTERS
    ]


def verified(observed: GoldenObservation, now: datetime) -> tuple[Verdict, Verification | None]:
    """Judge a model.

    Returns:
        The verdict, and what the status is to say; None leaves that as it is.
    """
    golden, before = observed.golden, observed.previous.verification
    last = _last(observed.previous)
    if golden is None:
        return unknown(Reason.NO_GOLDEN), None
    # First of all: once the version before is back, Serve says nothing of this one any more.
    if before is not None and before.refused == observed.wanted:
        message = last.message if last is not None and last.reason == Reason.DRIFTED else ""
        return false(Reason.DRIFTED, message), None
    if not observed.serve_answers and last is not None and last.reason != Reason.DRIFTED:
        return Verdict(last.status, Reason(last.reason), last.message), None
    app = observed.application
    if app is None or observed.applied != observed.wanted:
        return unknown(Reason.VERIFYING), None
    if app.status in FAILED and app.message.startswith(_MISMATCH):
        return drifted(app.message.removeprefix(_MISMATCH), golden, observed.wanted, now)
    # Without replicas nothing is compared, and nothing forgotten.
    if app.status == "RUNNING" and (app.pids or (last and last.status is Truth.TRUE)):
        reason = Reason.MATCHES if observed.pinned else Reason.RECORDED
        return true(reason), _passed(golden, before, now)
    return unknown(Reason.VERIFYING), None


def drifted(
    message: str, golden: Golden, version: str, now: datetime
) -> tuple[Verdict, Verification]:
    """Refuse a version, told by its fingerprint, for what its replicas say or would say."""
    facts = Verification(
        time=now.replace(microsecond=0),
        contract_hash=golden.contract_hash,
        refused=version,
        **measured(message)._asdict(),
    )
    return false(Reason.DRIFTED, message), facts


def _passed(golden: Golden, before: Verification | None, now: datetime) -> Verification | None:
    """Note when a contract was first found right; the same finding again changes nothing."""
    if before is not None and not before.refused and before.contract_hash == golden.contract_hash:
        return None
    return Verification(time=now.replace(microsecond=0), contract_hash=golden.contract_hash)


def _last(previous: ModelStatus) -> Condition | None:
    """Find what was said last."""
    conditions = previous.conditions or ()
    return next((each for each in conditions if each.type == Observation.VERIFIED), None)
