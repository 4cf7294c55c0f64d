"""Whether a model gives its golden outputs: what Serve says, and what stays said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from embedfleet.golden import Golden, compare, refusal
from embedfleet.messages import Role
from embedfleet.rendering.plan import Impact
from embedfleet.rendering.serve import render_serve
from embedfleet.rendering.serve_state import ApplicationStatus, summarize
from embedfleet.resources import Manifests, parse_manifests
from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.crds.status import ModelStatus, Truth
from embedfleet_operator.reporting.model import ModelObservation, may_serve, model_status
from embedfleet_operator.reporting.verified import GoldenObservation, fingerprint, verified

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
HEAD = "apiVersion: embedfleet.io/v1alpha1\n"


def given(spec: str = "") -> Manifests:
    return parse_manifests(
        f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{{name: a}}, {{name: b}}]}}\n"
        f"---\n{HEAD}kind: Embedder\nmetadata: {{name: docs}}\n"
        f"spec: {{model: {{source: embedded/embedder}}, {spec}}}\n"
    )


MODEL = given().embedders[0]
GOLDEN = Golden.of(
    Role.EMBEDDER, f"v1:{'a' * 32}", "Find",
    {place: np.array([1, 0], np.float32) for place in range(8)},
)  # fmt: skip
TURNED = {place: np.array([3, 4 if place == 5 else 0], np.float32) for place in range(8)}
ERROR = refusal(GOLDEN, GOLDEN.contract_hash, compare(GOLDEN, TURNED), 0.99)


def application(spec: str = "", golden: Golden | None = GOLDEN) -> dict[str, Any]:
    manifests = given(spec)
    goldens = {"emb-docs": golden} if golden else {}
    config = render_serve(manifests.only_fleet(), manifests.models, None, goldens)
    found: dict[str, Any] = config["applications"][0]
    return found


OLD, NEW = fingerprint(application()), fingerprint(application("backend: echo"))


def serve(status: str, running: int, message: str = "") -> ApplicationStatus:
    return ApplicationStatus("emb-docs", status, message, 2, tuple(range(running)), running)


def failing() -> ApplicationStatus:
    """Read what Serve tells of a replica that refused to start."""
    trace = (
        'Traceback (most recent call last):\n  File "replica.py", line 1, in reconfigure\n'
        f"embedfleet.errors.GoldenMismatch: {ERROR}\n"
    )
    details = {"status": "DEPLOY_FAILED", "message": "", "deployments": {"embedder": {
        "message": f"The deployment failed to start 3 times in a row. Error:\n{trace}",
        "target_num_replicas": 2,
        "replicas": [{"state": "RUNNING", "pid": 7}],
    }}}  # fmt: skip
    return summarize("emb-docs", details)


def seen(**others: Any) -> GoldenObservation:
    base = GoldenObservation(
        golden=GOLDEN, pinned=False, wanted=OLD, applied=OLD,
        application=serve("RUNNING", 2), previous=ModelStatus(),
    )  # fmt: skip
    return replace(base, **others)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (seen(golden=None), "UnknownNoGolden"),
        (seen(), "TrueRecorded"),
        (seen(pinned=True), "TrueMatches"),
        (seen(application=None, applied=""), "UnknownVerifying"),
        (seen(application=serve("DEPLOYING", 0)), "UnknownVerifying"),
        (seen(wanted=NEW), "UnknownVerifying"),
        (seen(application=serve("RUNNING", 0)), "UnknownVerifying"),
        (seen(application=serve("DEPLOY_FAILED", 1, "CheckpointError: x")), "UnknownVerifying"),
        (seen(application=failing()), "FalseDrifted"),
        (seen(application=failing(), wanted=NEW), "UnknownVerifying"),
    ],
    ids=["none-yet", "recorded", "pinned", "not-in-serve", "starts", "not-applied-yet", "asleep",
         "fails-otherwise", "drifted", "what-failed-is-not-wanted-any-more"],
)  # fmt: skip
def test_verdict(observed: GoldenObservation, expected: str) -> None:
    verdict, _ = verified(observed, NOW)
    assert f"{verdict.status}{verdict.reason}" == expected


def test_drift_is_said_in_the_replicas_words_and_numbers() -> None:
    verdict, facts = verified(seen(application=failing()), NOW)
    assert verdict.message == ERROR
    assert facts is not None
    # (1, 0) against (3, 4): 3 / 5.
    assert (facts.worst_cosine, facts.worst_text) == (0.6, "A tidal mill works without a ri…")
    assert (facts.contract_hash, facts.time, facts.refused) == (GOLDEN.contract_hash, NOW, OLD)


def test_a_record_is_not_written_again() -> None:
    _, facts = verified(seen(), NOW)
    assert facts is not None
    assert facts.refused is None
    assert verified(seen(previous=ModelStatus(verification=facts)), LATER)[1] is None


def written(observed: GoldenObservation, now: datetime) -> ModelStatus:
    """Write the status that the next look starts from."""
    verdict, facts = verified(observed, now)
    model = ModelObservation(
        generation=1, previous=observed.previous, verified=verdict, serve_answers=True,
        application=observed.application, facts=ModelStatus(verification=facts),
    )  # fmt: skip
    return model_status(MODEL, model, Impact.NO_CHANGE, now)


def reason(status: ModelStatus) -> str:
    (found,) = (c for c in status.conditions or () if c.type == Observation.VERIFIED)
    return found.reason


def test_what_was_refused_stays_refused_until_it_changes() -> None:
    """The story of a new version: it fails, the old one is back, the spec is corrected."""
    status = written(seen(wanted=NEW, applied=NEW, application=failing()), NOW)
    assert (reason(status), may_serve(status)) == (Reason.DRIFTED, False)
    for look in (failing(), serve("DEPLOYING", 1), serve("RUNNING", 2)):
        # The old version is in Serve's configuration again.
        observed = seen(wanted=NEW, applied=OLD, application=look, previous=status)
        status = written(observed, LATER)
        assert (reason(status), may_serve(status)) == (Reason.DRIFTED, False)
        (held,) = (c for c in status.conditions or () if c.type == Observation.VERIFIED)
        assert (held.message, held.last_transition_time) == (ERROR, NOW)
    back = seen(wanted=OLD, applied=OLD, previous=status)
    status = written(back, LATER)
    assert (reason(status), may_serve(status)) == (Reason.RECORDED, True)
    again = written(seen(wanted=NEW, applied=OLD, previous=status), LATER)
    assert (reason(again), may_serve(again)) == (Reason.VERIFYING, True)


def test_going_to_sleep_forgets_nothing() -> None:
    status = written(seen(), NOW)
    asleep = seen(application=serve("RUNNING", 0), previous=status)
    assert reason(written(asleep, LATER)) == Reason.RECORDED


def test_silence_of_serve_changes_nothing() -> None:
    silent = {"application": None, "applied": "", "serve_answers": False}
    good = written(seen(), NOW)
    assert reason(written(seen(previous=good, **silent), LATER)) == Reason.RECORDED
    refused = written(seen(wanted=NEW, applied=NEW, application=failing()), NOW)
    still = written(seen(wanted=NEW, previous=refused, **silent), LATER)
    assert (reason(still), may_serve(still)) == (Reason.DRIFTED, False)
    corrected = written(seen(wanted=OLD, previous=refused, **silent), LATER)
    assert (reason(corrected), may_serve(corrected)) == (Reason.VERIFYING, True)
    assert reason(written(seen(**silent), NOW)) == Reason.VERIFYING


def test_forgetting_the_golden_outputs_lets_the_new_version_in() -> None:
    refused = written(seen(wanted=NEW, applied=NEW, application=failing()), NOW)
    without = seen(golden=None, wanted=NEW, applied=OLD, previous=refused)
    assert may_serve(written(without, LATER))


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (application("backend: echo"), True),
        (application("quantization: {weights: float32}"), True),
        (application("placement: {pools: [b]}"), True),
        (application("verification: {minCosine: 0.5}"), True),
        (application(golden=None), True),
        (application("dimension: 64"), False),
        (application("scaling: {maxReplicas: 9}"), False),
        (application("instruction: {default: x}"), False),
    ],
    ids=["backend", "weights", "pool", "bound", "golden", "dimension", "scale", "instruction"],
)
def test_what_makes_another_version(other: dict[str, Any], differs: bool) -> None:
    assert (fingerprint(other) != OLD) is differs
    assert fingerprint(other, "image:1") != fingerprint(other, "image:2")


def test_drift_that_is_not_known_yet_keeps_nothing_out() -> None:
    for observed in (seen(golden=None), seen(wanted=NEW)):
        verdict, _ = verified(observed, NOW)
        assert verdict.status is Truth.UNKNOWN
        assert may_serve(written(observed, NOW))
