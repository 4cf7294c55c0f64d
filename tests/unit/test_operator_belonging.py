"""What belongs to whom: models to fleets, and Ray clusters that run already to fleets."""

from __future__ import annotations

from typing import Any

import pytest
from memory_serve import Serve
from operator_facts import conditions, known, raw
from operator_samples import (
    BUILT,
    DOCS,
    GUEST,
    GUEST_SPEC,
    applications,
    at,
    embedder,
    message,
    route,
)

from embedfleet.rendering.plan import Impact
from embedfleet_operator.acting.serve_clusters import read_state
from embedfleet_operator.deciding.decide import decide
from embedfleet_operator.observing.judging import fleet_names, fleet_of
from embedfleet_operator.observing.seen import ServeState
from embedfleet_operator.rendering import Manifest


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("http://ray.search:8265", "http://ray.search.svc:8265", True),
        ("http://ray.search.svc:8265", "http://ray.search.svc.cluster.local:8265", True),
        (
            "http://ray.search.svc.cluster.local:8265",
            "http://ray.search.svc.corp.example.:8265",
            True,
        ),
        ("http://RAY.search:8265", "http://ray.Search:8265/", True),
        ("http://ray.search", "http://ray.search:80", True),
        ("https://ray.search", "https://ray.search:443", True),
        ("http://ray.search", "https://ray.search", False),
        ("http://ray.search:8265", "http://ray.search:8266", False),
        ("http://ray.search:8265", "http://ray.ads.svc:8265", False),
        ("http://ray.example.com:8265", "http://ray.example.org:8265", False),
        # Where a bare name leads rests on where the operator runs: Serve itself tells.
        ("http://ray:8265", "http://ray.search.svc:8265", False),
    ],
)
def test_one_dashboard_has_many_spellings(one: str, other: str, is_same: bool) -> None:
    decision = decide(known(at(one), others=[at(other, 45, "g", "ads")]))
    if is_same:
        assert decision.refusal is not None
        assert "is Fleet ads/g's" in decision.refusal.message
    else:
        assert decision.refusal is None


def left_by(fleet: Manifest, *models: Manifest, told: str | None = None) -> ServeState:
    """What Serve says after a fleet put its models; `told` is what the router then says it is."""
    config = decide(known(fleet, models, serve=ServeState(""))).config
    assert config is not None
    if told is not None:
        config["applications"][-1]["deployments"][0]["user_config"]["fleet"] = told
    serve = Serve()
    serve.put(config)
    serve.details()
    return read_state(serve.details())


def held(fleet: Manifest) -> Manifest:
    """The fleet once the operator has begun to put its models somewhere."""
    return {**fleet, "metadata": {**fleet["metadata"], "finalizers": ["embedfleet.io/serve"]}}


ELSEWHERE = at("http://ray.other:8265", name="f", namespace="team-b")
NOBODY = "runs applications that this fleet has not put there: emb-docs, router"


@pytest.mark.parametrize(
    ("fleet", "state", "words"),
    [
        (GUEST, ServeState(""), ""),
        (held(GUEST), left_by(GUEST, DOCS), ""),
        # Its mark is enough, as when a cluster of Kubernetes is restored from a copy.
        (GUEST, left_by(GUEST, DOCS), ""),
        (GUEST, left_by(ELSEWHERE), "runs applications of Fleet team-b/f: router"),
        (held(GUEST), left_by(ELSEWHERE, DOCS), "of Fleet team-b/f: emb-docs, router"),
        (
            GUEST, left_by(raw("Fleet", "g", BUILT["spec"], 40, "team-b"), DOCS),
            "of Fleet team-b/g: emb-docs, router",
        ),
        # Releases before, and laptops, left no namespace.
        (held(GUEST), left_by(GUEST, DOCS, told="f"), ""),
        (GUEST, left_by(GUEST, DOCS, told="f"), NOBODY),
        (held(GUEST), left_by(GUEST, DOCS, told="g"), NOBODY),
        (
            GUEST, read_state({"applications": {"router": {"status": "RUNNING"}}}),
            "runs applications that this fleet has not put there: router",
        ),
        (held(GUEST), read_state({"applications": {"router": {"status": "DELETING"}}}), ""),
        (
            held(GUEST), read_state({"applications": {"chat": {"status": "RUNNING"}}}),
            "runs applications of others: chat",
        ),
        # What KubeRay built is nobody else's.
        (BUILT, left_by(ELSEWHERE, DOCS), ""),
    ],
    ids=[
        "empty", "own", "restored", "anothers", "moved", "built", "upgraded", "unmarked",
        "unmarked-other", "unknown", "going", "strangers", "kuberay",
    ],
)  # fmt: skip
def test_whose_a_ray_cluster_is(fleet: Manifest, state: ServeState, words: str) -> None:
    decision = decide(known(fleet, [DOCS], serve=state))
    if not words:
        assert decision.refusal is None
        return
    assert (decision.manifests, decision.config) == (None, None)
    assert decision.refusal is not None
    assert words in decision.refusal.message
    assert decision.refusal.message.startswith("spec.existingCluster.dashboard is http://ray:8265")
    assert decision.refusal.message.endswith("or empty that one with `serve shutdown`.")


def test_a_cluster_is_marked_without_a_restart() -> None:
    state = left_by(GUEST, DOCS, told="f")
    decision = decide(known(held(GUEST), [DOCS], serve=state))
    (change,) = [each for each in decision.plan.changes if "user_config" in each.field]
    assert (change.resource, change.impact) == ("Fleet/f", Impact.RECONFIGURE)
    assert (change.before, change.after) == ("f", "search/f")


@pytest.mark.parametrize(
    ("spec", "fleets", "fleet"),
    [
        ({}, ["f"], "f"),
        # The first is the oldest, whatever its name.
        ({}, ["f", "g"], "f"),
        ({}, ["g", "f"], "g"),
        ({}, [], ""),
        ({"fleet": "g"}, ["f", "g"], "g"),
        ({"fleet": "h"}, ["f"], ""),
        ({"fleet": ""}, ["f"], ""),
        ({"fleet": 7}, ["f"], "f"),
        (None, ["f"], "f"),
    ],
)
def test_whose_a_model_is(spec: Any, fleets: list[str], fleet: str) -> None:
    assert fleet_of({"spec": spec}, fleets) == fleet


def test_fleets_are_known_by_age_and_then_by_name() -> None:
    fleets = [raw("Fleet", name, {}, age) for name, age in (("c", 1), ("b", 7), ("a", 7), ("d", 9))]
    going = raw("Fleet", "e", {}, 40)
    going["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    assert fleet_names([*fleets, going]) == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    "spec", [BUILT["spec"], GUEST_SPEC, {"pools": []}, None], ids=["built", "guest", "bad", "none"]
)
def test_one_more_fleet_moves_no_model(spec: Any) -> None:
    models = [DOCS, route("docs")]
    # Its name comes first: age alone decides.
    another = raw("Fleet", "a", spec, age=1)
    alone, beside = decide(known(BUILT, models)), decide(known(BUILT, models, [another]))
    assert (beside.config, beside.manifests) == (alone.config, alone.manifests)
    newer = decide(known(another, models, [BUILT]))
    assert list(newer.statuses) == ["Fleet/a"]
    assert newer.config is None or applications(newer) == ["router"]
    for ref in ("Embedder/docs", "ModelRoute/route"):
        assert conditions(beside.statuses[ref]) == conditions(alone.statuses[ref])
        assert "spec.fleet" not in message(alone, ref)
        assert "this namespace has a, f: the oldest, f, is taken. Name one." in message(beside, ref)


def test_a_model_that_names_its_fleet_needs_no_advice() -> None:
    another = raw("Fleet", "a", {"pools": []}, age=1)
    decision = decide(known(BUILT, [embedder("docs", fleet="f")], [another]))
    assert "spec.fleet" not in message(decision, "Embedder/docs")
