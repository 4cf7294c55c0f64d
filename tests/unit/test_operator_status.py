"""Conditions of models and fleets: a table of what is observed and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from operator_facts import raw

from embedfleet.rendering.plan import Change, Impact, Plan
from embedfleet.rendering.serve_state import ApplicationStatus, ScaleDecision
from embedfleet.resources import Embedder, Fleet, parse_manifests
from embedfleet_operator.conditions.reasons import REASONS, Observation, Reason
from embedfleet_operator.conditions.verdicts import Refusal, Verdict
from embedfleet_operator.crds.status import Condition, FleetStatus, ModelStatus, Truth
from embedfleet_operator.observing.judging import judged_models
from embedfleet_operator.reporting.fleet import FleetObservation, fleet_status
from embedfleet_operator.reporting.model import ModelObservation, may_serve, model_status
from embedfleet_operator.reporting.reports import orphan_statuses

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
MANIFESTS = parse_manifests(
    f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{{name: a}}]}}\n---\n"
    f"{HEAD}kind: Embedder\nmetadata: {{name: docs}}\n"
    "spec: {model: {source: embedded/embedder}, scaling: {minReplicas: 2, maxReplicas: 9}}\n"
)
MODEL: Embedder = MANIFESTS.embedders[0]
FLEET: Fleet = MANIFESTS.only_fleet()
ERROR = "CheckpointError: config.json of /models/x is missing. Check the path."


def app(status: str, running: int, target: int, message: str = "") -> ApplicationStatus:
    pids = tuple(range(100, 100 + running))
    return ApplicationStatus("emb-docs", status, message, target, pids, running)


def seen(application: ApplicationStatus | None = None, **others: object) -> ModelObservation:
    base = ModelObservation(generation=4, serve_answers=True, application=application)
    return replace(base, **others)  # type: ignore[arg-type]


def said(status: ModelStatus | FleetStatus) -> dict[str, str]:
    """Give the conditions as `TrueReason`, by type."""
    return {c.type: f"{c.status}{c.reason}" for c in status.conditions or ()}


REFUSED = Refusal(Reason.INVALID, "spec.dimension is 9999: at most 128. Lower it.")
FETCHING = Verdict(Truth.FALSE, Reason.FETCHING, "3 of 9 GiB are there.")
MISMATCH = Verdict(Truth.FALSE, Reason.DIGEST_MISMATCH, "The weights are others.")
DRIFTED = Verdict(Truth.FALSE, Reason.DRIFTED, "Worst cosine 0.91; at least 0.99.")
FETCHED = Verdict(Truth.TRUE, Reason.FETCHED, "")
MATCHES = Verdict(Truth.TRUE, Reason.MATCHES, "")


@pytest.mark.parametrize(
    ("observed", "impact", "progressing", "ready", "warm", "degraded"),
    [
        (seen(), Impact.START, "TrueUpdating", "FalseStarting", "FalseStarting", "FalseHealthy"),
        (seen(), Impact.NO_CHANGE, "TrueStarting", "FalseStarting", "FalseStarting",
         "FalseHealthy"),
        (seen(app("DEPLOYING", 0, 2)), Impact.NO_CHANGE, "TrueStarting", "FalseStarting",
         "FalseStarting", "FalseHealthy"),
        (seen(app("DEPLOYING", 2, 2)), Impact.NO_CHANGE, "TrueUpdating", "TrueServing",
         "TrueServing", "FalseHealthy"),
        (seen(app("RUNNING", 2, 2)), Impact.NO_CHANGE, "FalseSettled", "TrueServing",
         "TrueServing", "FalseHealthy"),
        (seen(app("RUNNING", 2, 2)), Impact.RECONFIGURE, "TrueUpdating", "TrueServing",
         "TrueServing", "FalseHealthy"),
        (seen(app("RUNNING", 3, 5)), Impact.NO_CHANGE, "TrueScaling", "TrueServing",
         "TrueServing", "FalseHealthy"),
        (seen(app("RUNNING", 1, 2)), Impact.NO_CHANGE, "TrueScaling", "TrueServing",
         "TrueServing", "TrueReplicasMissing"),
        (seen(app("DEPLOY_FAILED", 0, 2, ERROR)), Impact.NO_CHANGE, "FalseFailed", "FalseFailed",
         "FalseFailed", "TrueFailed"),
        (seen(app("DEPLOY_FAILED", 2, 2, ERROR)), Impact.NO_CHANGE, "FalseFailed", "TrueServing",
         "TrueServing", "TrueUpdateFailed"),
        (seen(app("UNHEALTHY", 1, 2, ERROR)), Impact.NO_CHANGE, "FalseFailed", "TrueServing",
         "TrueServing", "TrueUpdateFailed"),
        (ModelObservation(generation=4), Impact.NO_CHANGE, "UnknownUnreachable",
         "UnknownUnreachable", "UnknownUnreachable", "UnknownUnreachable"),
        (seen(refusal=REFUSED), Impact.NO_CHANGE, "FalseHeld", "FalseHeld", "FalseHeld",
         "FalseHealthy"),
        (seen(cached=FETCHING), Impact.NO_CHANGE, "TrueFetching", "FalseHeld", "FalseHeld",
         "FalseHealthy"),
        (seen(cached=MISMATCH), Impact.NO_CHANGE, "FalseHeld", "FalseHeld", "FalseHeld",
         "FalseHealthy"),
        # An earlier version goes on answering.
        (seen(app("RUNNING", 2, 2), refusal=REFUSED), Impact.NO_CHANGE, "FalseHeld",
         "TrueServing", "TrueServing", "TrueHeld"),
        (seen(app("RUNNING", 2, 2), verified=DRIFTED), Impact.NO_CHANGE, "FalseHeld",
         "TrueServing", "TrueServing", "TrueHeld"),
    ],
    ids=[
        "planned", "not-known-yet", "starts", "rolls", "runs", "changes", "scales",
        "below-minimum", "fails", "new-version-fails", "unhealthy", "silent", "refused",
        "fetching", "wrong-files", "refused-while-serving", "drifted-while-serving",
    ],
)  # fmt: skip
def test_conditions_of_a_model(
    observed: ModelObservation, impact: Impact, progressing: str, ready: str, warm: str,
    degraded: str,
) -> None:  # fmt: skip
    found = said(model_status(MODEL, observed, impact, NOW))
    assert list(found) == [
        "Accepted", "Cached", "Verified", "Progressing", "Ready", "Warm", "Degraded",
    ]  # fmt: skip
    assert found["Progressing"] == progressing
    assert (found["Ready"], found["Warm"]) == (ready, warm)
    assert found["Degraded"] == degraded


def test_a_model_without_replicas_is_ready_and_not_warm() -> None:
    spec = MODEL.spec.model_copy(
        update={"scaling": MODEL.spec.scaling.model_copy(update={"min_replicas": 0})}
    )
    asleep = MODEL.model_copy(update={"spec": spec})
    found = said(model_status(asleep, seen(app("RUNNING", 0, 0)), Impact.NO_CHANGE, NOW))
    assert (found["Ready"], found["Warm"]) == ("TrueScaledToZero", "FalseScaledToZero")
    assert (found["Progressing"], found["Degraded"]) == ("FalseSettled", "FalseHealthy")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (seen(), True),  # nothing to compare with is no reason to keep a model out
        (seen(cached=FETCHED, verified=MATCHES), True),
        (seen(refusal=REFUSED), False),
        (seen(cached=FETCHING), False),
        (seen(verified=DRIFTED), False),
        (replace(seen(), serve_answers=False), True),
    ],
    ids=["plain", "all-hold", "refused", "fetching", "drifted", "silent"],
)
def test_who_is_in_serves_configuration(observed: ModelObservation, expected: bool) -> None:
    assert may_serve(model_status(MODEL, observed, Impact.NO_CHANGE, NOW)) is expected


def test_a_model_that_was_never_seen_does_not_serve() -> None:
    assert not may_serve(ModelStatus())


def test_time_moves_with_the_status_and_with_nothing_else() -> None:
    first = model_status(MODEL, seen(app("DEPLOYING", 0, 2)), Impact.NO_CHANGE, NOW)
    again = seen(app("DEPLOYING", 0, 2), previous=first)
    assert model_status(MODEL, again, Impact.NO_CHANGE, LATER) == first
    runs = model_status(MODEL, seen(app("RUNNING", 2, 2), previous=first), Impact.NO_CHANGE, LATER)
    times = {c.type: c.last_transition_time for c in runs.conditions or ()}
    seconds = {NOW.replace(microsecond=0): "then", LATER.replace(microsecond=0): "now"}
    assert {kind: seconds[time] for kind, time in times.items()} == {
        "Accepted": "then", "Cached": "then", "Verified": "then", "Progressing": "now",
        "Ready": "now", "Warm": "now", "Degraded": "then",
    }  # fmt: skip
    assert all(c.observed_generation == 4 for c in runs.conditions or ())


def test_what_starts_for_too_long_is_stuck() -> None:
    status = model_status(MODEL, seen(), Impact.NO_CHANGE, NOW)
    for minutes, expected in ((14, "FalseHealthy"), (16, "TrueStuck"), (600, "TrueStuck")):
        observed = seen(previous=status)
        later = NOW + timedelta(minutes=minutes)
        status = model_status(MODEL, observed, Impact.NO_CHANGE, later)
        assert said(status)["Degraded"] == expected


def test_a_failure_is_kept_with_the_time_of_its_first_sight() -> None:
    failing = app("DEPLOY_FAILED", 0, 2, ERROR)
    first = model_status(MODEL, seen(failing), Impact.NO_CHANGE, NOW)
    assert first.last_failure is not None
    assert first.last_failure.reason == "CheckpointError"
    assert first.last_failure.message == ERROR
    again = model_status(MODEL, seen(failing, previous=first), Impact.NO_CHANGE, LATER)
    assert again == first
    healed = seen(app("RUNNING", 2, 2), previous=again)
    assert model_status(MODEL, healed, Impact.NO_CHANGE, LATER).last_failure == first.last_failure


def test_serves_own_words_are_named_by_its_status() -> None:
    words = "The deployment failed to start 3 times in a row."
    found = model_status(MODEL, seen(app("DEPLOY_FAILED", 0, 2, words)), Impact.NO_CHANGE, NOW)
    assert found.last_failure is not None
    assert found.last_failure.reason == "DeployFailed"


def test_counts_stay_while_serve_is_silent() -> None:
    scaled = replace(
        app("RUNNING", 3, 3), live_replicas=4, last_scale=ScaleDecision(1e9 + 0.5, 2, 3, "busy")
    )
    facts = ModelStatus(contract_hash="v1:abc", fleet="f", endpoint="f.n:9000")
    first = model_status(MODEL, seen(scaled, facts=facts), Impact.NO_CHANGE, NOW)
    assert (first.replicas, first.ready_replicas) == (4, 3)
    assert first.last_scale is not None
    assert (first.last_scale.from_replicas, first.last_scale.to_replicas) == (2, 3)
    assert first.last_scale.time == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    silent = ModelObservation(generation=5, previous=first)
    found = model_status(MODEL, silent, Impact.NO_CHANGE, LATER)
    assert (found.replicas, found.ready_replicas) == (4, 3)
    assert (found.contract_hash, found.fleet, found.last_scale) == ("v1:abc", "f", first.last_scale)
    assert found.observed_generation == 5


def test_nothing_replicates_before_serve_has_started() -> None:
    starting = Verdict(Truth.FALSE, Reason.STARTING, "")
    observed = ModelObservation(generation=4, unanswered=starting)
    found = model_status(MODEL, observed, Impact.NO_CHANGE, NOW)
    assert (found.replicas, found.ready_replicas) == (0, 0)


@pytest.mark.parametrize("reason", [Reason.HELD, Reason.UNREACHABLE])
def test_what_was_never_seen_has_no_replicas(reason: Reason) -> None:
    silent = ModelObservation(generation=4, unanswered=Verdict(Truth.FALSE, reason, "Silent."))
    found = model_status(MODEL, silent, Impact.NO_CHANGE, NOW)
    assert (found.replicas, found.ready_replicas) == (0, 0)


def test_a_fleet_that_is_gone_leaves_no_trace_in_its_models() -> None:
    never = raw("Embedder", "docs", {"model": {"source": "embedded/embedder"}, "fleet": "gone"})
    was = {
        **never,
        "status": {
            "fleet": "gone", "endpoint": "gone.search.svc:9000", "selector": "a=b",
            "servedRevision": "1" * 40, "replicas": 2, "readyReplicas": 1,
        },
    }  # fmt: skip
    one, other = (
        orphan_statuses(judged_models(None, (), [each]), (), NOW) for each in (never, was)
    )
    assert one == other


def test_every_reason_is_documented() -> None:
    assert set(REASONS) == set(Reason)


def test_long_messages_fit_the_schema() -> None:
    failing = app("DEPLOY_FAILED", 0, 2, "x" * 10_000)
    found = model_status(MODEL, seen(failing), Impact.NO_CHANGE, NOW)
    read = ModelStatus.model_validate_json(found.model_dump_json(by_alias=True))
    assert read == found


def model(**truths: Truth) -> ModelStatus:
    """Build a model's status with some conditions, good ones otherwise."""
    good = dict.fromkeys(Observation, Truth.TRUE) | {
        Observation.PROGRESSING: Truth.FALSE,
        Observation.DEGRADED: Truth.FALSE,
    }
    given = good | {Observation(kind.capitalize()): truth for kind, truth in truths.items()}
    return ModelStatus(
        conditions=tuple(
            Condition(type=str(k), status=v, last_transition_time=NOW, reason="X", message="")
            for k, v in given.items()
        )
    )


ROUTER = ApplicationStatus("router", "RUNNING", "", 1, (7,), 1)
KUBERAY_READY = {"Ready": {"status": "True", "reason": "NonZeroServeEndpoints"}}


def fleet(**others: object) -> FleetObservation:
    base = FleetObservation(
        generation=2,
        cluster=KUBERAY_READY,
        edge_pods=(2, 2),
        serve_answers=True,
        applications={"router": ROUTER},
        models={"Embedder/docs": model(), "Reranker/rel": model()},
        pools={"b": (1, 2), "a": (3, 3)},
        endpoint="f.n.svc:9000",
    )
    return replace(base, **others)  # type: ignore[arg-type]


CHANGE = Plan((Change("Fleet/f", "spec.image", "a", "b", Impact.NEW_CLUSTER, ""),))
BROKEN = {"Embedder/docs": model(ready=Truth.FALSE, degraded=Truth.TRUE), "Reranker/rel": model()}


@pytest.mark.parametrize(
    ("observed", "plan", "progressing", "ready", "degraded"),
    [
        (fleet(), Plan(), "FalseSettled", "TrueServing", "FalseHealthy"),
        (fleet(), CHANGE, "TrueUpdating", "TrueServing", "FalseHealthy"),
        (fleet(cluster={**KUBERAY_READY, "UpgradeInProgress": {"status": "True"}}), Plan(),
         "TrueUpgrading", "TrueServing", "FalseHealthy"),
        (FleetObservation(generation=2), Plan(), "TrueStarting", "FalseStarting", "FalseHealthy"),
        (fleet(applications={}), Plan(), "TrueStarting", "FalseStarting", "FalseHealthy"),
        (fleet(serve_answers=False), Plan(), "UnknownUnreachable", "UnknownUnreachable",
         "UnknownUnreachable"),
        (fleet(cluster={"Ready": {"status": "False", "reason": "InitializingTimeout"}}), Plan(),
         "FalseTimedOut", "FalseTimedOut", "TrueTimedOut"),
        (fleet(applications={"router": replace(ROUTER, status="UNHEALTHY", message="x")}), Plan(),
         "FalseFailed", "FalseFailed", "TrueFailed"),
        (fleet(edge_pods=(1, 2)), Plan(), "FalseSettled", "TrueServing", "TrueEdgeMissing"),
        (fleet(edge_pods=(0, 2)), Plan(), "FalseSettled", "FalseEdgeMissing", "TrueEdgeMissing"),
        (fleet(models=BROKEN), Plan(), "FalseSettled", "TrueServing", "TrueSomeModels"),
        (fleet(models={"Embedder/docs": model(progressing=Truth.TRUE)}), Plan(),
         "TrueSomeModels", "TrueServing", "FalseHealthy"),
        (FleetObservation(generation=2, refusal=REFUSED), Plan(), "FalseHeld", "FalseHeld",
         "FalseHealthy"),
    ],
    ids=[
        "runs", "changes", "second-cluster", "new", "no-router-yet", "silent", "given-up",
        "router-fails", "edge-short", "edge-gone", "broken-model", "model-moves", "refused",
    ],
)  # fmt: skip
def test_conditions_of_a_fleet(
    observed: FleetObservation, plan: Plan, progressing: str, ready: str, degraded: str
) -> None:
    found = said(fleet_status(FLEET, observed, plan, NOW))
    assert list(found) == [str(kind) for kind in Observation]
    assert found["Progressing"] == progressing
    assert found["Ready"] == ready
    assert found["Degraded"] == degraded


@pytest.mark.parametrize(
    ("kind", "truth", "expected"),
    [
        ("cached", Truth.FALSE, "FalseSomeModels"),
        ("cached", Truth.UNKNOWN, "TrueAllModels"),
        ("verified", Truth.FALSE, "FalseSomeModels"),
        ("verified", Truth.UNKNOWN, "TrueAllModels"),
        ("warm", Truth.FALSE, "FalseSomeModels"),
    ],
)
def test_a_fleet_says_which_models_lack_what(kind: str, truth: Truth, expected: str) -> None:
    models = {"Embedder/docs": model(**{kind: truth}), "Reranker/rel": model()}
    status = fleet_status(FLEET, fleet(models=models), Plan(), NOW)
    (condition,) = (c for c in status.conditions or () if c.type == kind.capitalize())
    assert f"{condition.status}{condition.reason}" == expected
    if truth is Truth.FALSE:
        assert condition.message == f"{kind.capitalize()} is False for Embedder/docs."


def test_counts_of_a_fleet() -> None:
    found = fleet_status(FLEET, fleet(models=BROKEN), Plan(), NOW)
    assert (found.served_models, found.nodes, found.endpoint) == (1, 4, "f.n.svc:9000")
    assert [(p.name, p.nodes, p.wanted_nodes) for p in found.pools or ()] == [
        ("a", 3, 3),
        ("b", 1, 2),
    ]


def test_a_fleet_seen_again_is_written_the_same() -> None:
    first = fleet_status(FLEET, fleet(), Plan(), NOW)
    assert fleet_status(FLEET, fleet(previous=first), Plan(), LATER) == first


def test_a_fleet_that_would_lose_its_state_says_so() -> None:
    accepted = next(iter(fleet_status(FLEET, fleet(), Plan(), NOW).conditions or ()))
    assert "spec.gcsFaultTolerance" in accepted.message
