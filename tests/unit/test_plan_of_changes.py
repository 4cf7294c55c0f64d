"""Which class a change of a manifest has, by the manifest's own field, and what it says."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np
import pytest

from embedfleet.golden import Golden
from embedfleet.messages import Role
from embedfleet.rendering.fitting import to_be_fitted
from embedfleet.rendering.plan import Impact, plan
from embedfleet.rendering.serve import render_serve
from embedfleet.resources import parse_manifests

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
NONE: dict[str, Golden] = {}
DOCS = f"model: {{source: me/docs, revision: {COMMIT}}}"
POOLS = "pools: [{name: a}, {name: b}, {name: g, accelerator: X, gpusPerNode: 1}]"


def config(
    embedder: str = DOCS, reranker: str = "", pools: str = "", goldens: dict[str, Golden] = NONE
) -> dict[str, Any]:
    head = "apiVersion: embedfleet.io/v1alpha1\n"
    text = head + f"kind: Fleet\nmetadata: {{name: f}}\nspec: {{{pools}}}\n"
    if embedder:
        text += f"---\n{head}kind: Embedder\nmetadata: {{name: docs}}\nspec: {{{embedder}}}\n"
    if reranker:
        text += f"---\n{head}kind: Reranker\nmetadata: {{name: rel}}\nspec: {{{reranker}}}\n"
    given = parse_manifests(text)
    return render_serve(given.only_fleet(), given.models, None, goldens)


@pytest.mark.parametrize(
    ("change", "field", "impact"),
    [
        # Reach running replicas: same process ids (measured on ray 2.60).
        ("dimension: 64", "spec.dimension", Impact.RECONFIGURE),
        ("allowedDimensions: [64, 128]", "spec.allowedDimensions", Impact.RECONFIGURE),
        ("quantization: {output: INT8}", "spec.quantization.output", Impact.RECONFIGURE),
        ("instruction: {default: x}", "spec.instruction.default", Impact.RECONFIGURE),
        (
            "instruction: {allowOverride: false}", "spec.instruction.allowOverride",
            Impact.RECONFIGURE,
        ),
        ("batching: {maxBatchTokens: 64}", "spec.batching.maxBatchTokens", Impact.RECONFIGURE),
        (
            "batching: {maxItemsPerRequest: 1}", "spec.batching.maxItemsPerRequest",
            Impact.RECONFIGURE,
        ),
        ("scaling: {maxReplicas: 3}", "spec.scaling.maxReplicas", Impact.RECONFIGURE),
        (
            "scaling: {targetOngoingRequests: 3}", "spec.scaling.targetOngoingRequests",
            Impact.RECONFIGURE,
        ),
        (
            "scaling: {upscaleDelaySeconds: 1}", "spec.scaling.upscaleDelaySeconds",
            Impact.RECONFIGURE,
        ),
        (
            "scaling: {downscaleDelaySeconds: 1}", "spec.scaling.downscaleDelaySeconds",
            Impact.RECONFIGURE,
        ),
        ("rollout: {maxSurgePercent: 50}", "spec.rollout.maxSurgePercent", Impact.RECONFIGURE),
        (
            "rollout: {gracefulShutdownSeconds: 60}", "spec.rollout.gracefulShutdownSeconds",
            Impact.RECONFIGURE,
        ),
        (
            "rollout: {healthCheckPeriodSeconds: 60}", "spec.rollout.healthCheckPeriodSeconds",
            Impact.RECONFIGURE,
        ),
        # Replace replicas one by one.
        ("placement: {cpus: 2}", "spec.placement.cpus", Impact.ROLL_REPLICAS),
        # Restart the application.
        ("backend: echo", "spec.backend", Impact.RESTART_APP),
        ("maxTokens: 512", "spec.maxTokens", Impact.RESTART_APP),
        ("quantization: {weights: float32}", "spec.quantization.weights", Impact.RESTART_APP),
    ],
)  # fmt: skip
def test_class_and_cause(change: str, field: str, impact: Impact) -> None:
    found = plan(config(), config(f"{DOCS}, {change}"))
    assert [(c.resource, c.field, c.impact) for c in found.changes] == [
        ("Embedder/docs", field, impact)
    ]
    assert found.unchanged == ("Fleet/f",)
    assert found.impact is impact
    assert not found.refused


def test_the_largest_message_is_told_to_every_replica() -> None:
    found = plan(config(), config(pools="grpc: {maxMessageBytes: 65536}"))
    assert [(c.resource, c.field, c.impact) for c in found.changes] == [
        ("Embedder/docs", "spec.grpc.maxMessageBytes", Impact.RECONFIGURE),
        ("Fleet/f", "spec.grpc.maxMessageBytes", Impact.RECONFIGURE),
    ]


def test_what_replicas_were_not_told_before_interrupts_nothing() -> None:
    before = config()
    for application in before["applications"]:
        del application["deployments"][0]["user_config"]["max_message_bytes"]
    assert plan(before, config()).impact is Impact.RECONFIGURE


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("placement: {pools: [a]}", "placement: {pools: [b]}", Impact.ROLL_REPLICAS),
        ("placement: {pools: [a]}", "placement: {pools: [a, b]}", Impact.ROLL_REPLICAS),
        ("placement: {pools: [a]}", "placement: {pools: [g]}", Impact.RESTART_APP),
    ],
    ids=["another-pool", "one-more-pool", "onto-gpus"],
)
def test_placement(before: str, after: str, expected: Impact) -> None:
    found = plan(config(f"{DOCS}, {before}", pools=POOLS), config(f"{DOCS}, {after}", pools=POOLS))
    assert found.of("Embedder/docs") is expected
    assert "spec.placement.pools" in {change.field for change in found.changes}


def test_minimum_of_replicas_moves_the_maximum_that_follows_it() -> None:
    found = plan(config(), config(f"{DOCS}, scaling: {{minReplicas: 2}}"))
    assert {change.field for change in found.changes} == {
        "spec.scaling.minReplicas",
        "spec.scaling.maxReplicas",
    }


def test_names_reach_the_router_too() -> None:
    found = plan(config(), config(f"{DOCS}, aliases: [x]"))
    assert {(c.resource, c.field, c.impact) for c in found.changes} == {
        ("Embedder/docs", "spec.aliases", Impact.RECONFIGURE),
        ("Fleet/f", "models", Impact.RECONFIGURE),
    }


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (f"model: {{source: me/docs, revision: {OTHER}}}", "spec.model.revision"),
        (f"model: {{source: me/other, revision: {COMMIT}}}", "spec.model.source"),
    ],
)
def test_other_vectors_are_announced(model: str, field: str) -> None:
    (change,) = (c for c in plan(config(), config(model)).changes if c.field == field)
    assert change.impact is Impact.RESTART_APP
    assert "vectors made before must be made again" in change.reason


def test_other_scores_are_announced() -> None:
    before = config(DOCS, f"model: {{source: me/rel, revision: {COMMIT}}}")
    after = config(DOCS, f"model: {{source: me/rel, revision: {OTHER}}}")
    change = plan(before, after).changes[-1]
    assert (change.resource, change.field) == ("Reranker/rel", "spec.model.revision")
    assert "scores change" in change.reason


def test_pair_limit_is_named_as_rerankers_spell_it() -> None:
    model = "model: {source: /m}"
    found = plan(config("", model), config("", f"{model}, maxPairTokens: 512"))
    assert [change.field for change in found.changes] == ["spec.maxPairTokens"]


def test_contract_in_use_is_not_changed() -> None:
    after = config(f"model: {{source: me/docs, revision: {OTHER}}}")
    found = plan(config(), after, immutable={"emb-docs"})
    assert found.refused
    assert found.of("Embedder/docs") is Impact.REFUSED
    assert "another name" in str(found)
    assert not plan(config(), config(f"{DOCS}, dimension: 64"), immutable={"emb-docs"}).refused


def golden(role: Role, contract: str = "a") -> Golden:
    row = np.ones(1, np.float32)
    return Golden.of(role, f"v1:{contract * 32}", "Find", dict.fromkeys(range(8), row))


EMBEDS, RANKS = golden(Role.EMBEDDER), golden(Role.RERANKER)
RELEVANCE = "model: {source: /m}"
LAX = "verification: {minCosine: 0.5}"
LAX_RANKS = "verification: {minRankAgreement: 0.5}"


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        (config(), config(goldens={"emb-docs": EMBEDS}),
         {"spec.verification", "spec.verification.minCosine"}),
        (config(goldens={"emb-docs": EMBEDS}),
         config(goldens={"emb-docs": golden(Role.EMBEDDER, "b")}), {"spec.verification"}),
        (config(goldens={"emb-docs": EMBEDS}),
         config(f"{DOCS}, {LAX}", goldens={"emb-docs": EMBEDS}), {"spec.verification.minCosine"}),
        (config("", RELEVANCE, goldens={"rrk-rel": RANKS}),
         config("", f"{RELEVANCE}, {LAX_RANKS}", goldens={"rrk-rel": RANKS}),
         {"spec.verification.minRankAgreement"}),
        (config(), config(f"{DOCS}, {LAX}"), set()),
    ],
    ids=["recorded", "another", "bound", "bound-of-ranks", "bound-of-nothing"],
)  # fmt: skip
def test_golden_outputs_reach_running_replicas(
    before: dict[str, Any], after: dict[str, Any], fields: set[str]
) -> None:
    found = plan(before, after)
    assert {change.field for change in found.changes} == fields
    assert {change.impact for change in found.changes} <= {Impact.RECONFIGURE}
    assert "v1:aaa" in str(found) or "spec.verification" not in fields
    assert all("compare their outputs first" in change.reason for change in found.changes)


def test_models_come_and_go() -> None:
    both = config(DOCS, "model: {source: /m}")
    assert plan(config(), both).of("Reranker/rel") is Impact.START
    assert plan(both, config()).of("Reranker/rel") is Impact.REMOVE
    assert plan(None, both).impact is Impact.START
    assert {change.resource for change in plan(None, both).changes} == {
        "Embedder/docs",
        "Fleet/f",
        "Reranker/rel",
    }


def test_applying_twice_changes_nothing() -> None:
    text = resources.files("embedfleet.embedded").joinpath("fleet.yaml").read_text()
    given = parse_manifests(text)
    wanted = render_serve(given.only_fleet(), given.models)
    applied = json.loads(json.dumps(wanted))
    found = plan(applied, wanted)
    assert found.changes == ()
    assert found.impact is Impact.NO_CHANGE
    assert str(found) == "NoChange: Embedder/docs, Fleet/laptop, Reranker/relevance"


def test_ports_need_a_new_cluster() -> None:
    other = config()
    other["grpc_options"] = {**other["grpc_options"], "port": 1}
    found = plan(config(), other)
    assert found.impact is Impact.NEW_CLUSTER
    assert "down and up" in str(found)


def test_what_is_not_known_is_taken_for_a_restart() -> None:
    other = config()
    other["applications"][0]["deployments"][0]["gang_scheduling_config"] = {"gang_size": 2}
    found = plan(config(), other)
    assert found.impact is Impact.RESTART_APP
    assert found.changes[0].field == "gang_scheduling_config.gang_size"


@pytest.mark.parametrize(
    ("surge", "says"), [(0, "a lone replica wait"), (100, "room for one more replica")]
)
def test_reason_says_who_waits(surge: int, says: str) -> None:
    rollout = f"rollout: {{maxSurgePercent: {surge}}}"
    before, after = config(f"{DOCS}, {rollout}"), config(f"{DOCS}, {rollout}, maxTokens: 64")
    assert says in plan(before, after).changes[0].reason


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ("dimension: 64", True),
        ("allowedDimensions: [64]", True),
        ("quantization: {output: BINARY}", True),
        ("instruction: {default: x}", False),
        ("scaling: {maxReplicas: 3}", False),
        # Other replicas of the same checkpoint.
        ("dimension: 64, maxTokens: 100", True),
        (f"dimension: 64, model: {{source: me/docs, revision: {OTHER}}}", False),
    ],
)
def test_what_running_replicas_are_asked_first(change: str, asked: bool) -> None:
    spec = change if "model:" in change else f"{DOCS}, {change}"
    current, desired = config(DOCS), config(spec)
    (before, _), (after, router) = current["applications"], desired["applications"]
    assert (to_be_fitted(before, after) is not None) is asked
    assert ("they are asked first" in str(plan(current, desired))) is asked
    assert to_be_fitted(router, router) is None


def test_text_is_what_a_person_needs() -> None:
    after = config(f"{DOCS}, dimension: 64, placement: {{cpus: 2}}")
    assert str(plan(config(), after)) == (
        "Embedder/docs: RollReplicas\n"
        "  spec.placement.cpus: 1.0 -> 2.0 (RollReplicas)\n"
        "    Replicas are replaced a few at a time. Calls to a lone replica wait:"
        " spec.rollout.maxSurgePercent avoids it.\n"
        "  spec.dimension: unset -> 64 (Reconfigure)\n"
        "    Running replicas take it over; they are asked first whether their checkpoint can.\n"
        "NoChange: Fleet/f"
    )
