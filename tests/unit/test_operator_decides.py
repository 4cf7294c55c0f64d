"""What the operator accepts, runs and says: a table of what it knows and what it decides."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from memory_serve import FAILS, Serve
from operator_facts import WHOLE, conditions, known, raw
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

from embedfleet.golden import Golden
from embedfleet.messages import Role
from embedfleet.resources.rules import Model
from embedfleet_operator.acting.foreseeing import Foreseer
from embedfleet_operator.acting.serve_clusters import read_state
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.crds.status import ModelStatus
from embedfleet_operator.deciding.decide import decide
from embedfleet_operator.deciding.differences import covers, owner, signed
from embedfleet_operator.observing.remembering import recalled
from embedfleet_operator.observing.seen import Seen, ServeState
from embedfleet_operator.rendering import KubeRayFeatures, Manifest

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("seen", "ref", "reason", "words"),
    [
        (known(BUILT, [DOCS]), "Embedder/docs", "TrueValid", ""),
        (
            known(BUILT, [DOCS, embedder("b", aliases=["docs"])]), "Embedder/b", "FalseInvalid",
            "spec.aliases[0] is docs",
        ),
        (
            known(BUILT, [DOCS, raw("Reranker", "docs", {"model": {"source": "/models/r"}})]),
            "Reranker/docs", "FalseInvalid", "metadata.name is docs",
        ),
        (
            known(BUILT, [embedder("docs", placement={"pools": ["gpu"]})]), "Embedder/docs",
            "FalseInvalid", "spec.placement.pools[0] is gpu",
        ),
        (
            known(BUILT, [embedder("docs", model={"size": "0.6B"}, dimension=1025)]),
            "Embedder/docs", "FalseInvalid", "spec.dimension is 1025",
        ),
        (
            known(BUILT, [embedder("docs", model={"source": "embedded/embedder", "cache": "c"})]),
            "Embedder/docs", "FalseInvalid", "spec.model.cache is c",
        ),
        (known(BUILT, [DOCS, route("docs")]), "ModelRoute/route", "TrueValid", ""),
        (
            known(BUILT, [DOCS, route("none")]), "ModelRoute/route", "FalseInvalid",
            "spec.rules[0].targets[0].model is none",
        ),
        (known(BUILT, [route("docs")]), "ModelRoute/route", "FalseInvalid", "spec.rules"),
        (known(BUILT), "Fleet/f", "TrueValid", ""),
        (known(raw("Fleet", "f", {})), "Fleet/f", "FalseInvalid", "spec.pools is empty"),
        (known(BUILT, kuberay=None), "Fleet/f", "FalseKubeRayMissing", "install"),
        (
            known(BUILT, kuberay={"spec": {"versions": [{"name": "v1alpha1"}]}}), "Fleet/f",
            "FalseKubeRayOutdated", "spec.serveConfigV2",
        ),
        # A Ray cluster that runs already needs no KubeRay.
        (known(GUEST, kuberay=None), "Fleet/f", "TrueValid", ""),
        (
            known(raw("Fleet", "f", {**BUILT["spec"], "auth": {"tokenSecretName": "t"}})),
            "Fleet/f", "FalseSecretMissing", "spec.auth.tokenSecretName is t",
        ),
        (
            known(raw("Fleet", "f", {**BUILT["spec"], "auth": {"tokenSecretName": "t"}}),
                  secrets={"t": {"data": {"other": ""}}}),
            "Fleet/f", "FalseSecretMissing", "no key auth_token",
        ),
        (
            known(GUEST, others=[raw("Fleet", "g", GUEST_SPEC, age=45, namespace="ads")]),
            "Fleet/f", "FalseInvalid", "spec.existingCluster.dashboard is http://ray:8265",
        ),
        # The one that KubeRay built is its fleet's, however young that is.
        (
            known(at("http://f-head-svc.ads.svc.cluster.local:8265"),
                  others=[raw("Fleet", "f", BUILT["spec"], age=3, namespace="ads")]),
            "Fleet/f", "FalseInvalid", "is Fleet ads/f's",
        ),
        (
            known(at("http://f-head-svc.ads.svc.cluster.local:8265"),
                  others=[raw("Fleet", "f", GUEST_SPEC, age=45, namespace="ads")]),
            "Fleet/f", "TrueValid", "",
        ),
        # Whose it was first keeps it.
        (
            known(GUEST, others=[raw("Fleet", "g", GUEST_SPEC, age=3, namespace="ads")]),
            "Fleet/f", "TrueValid", "",
        ),
    ],
)  # fmt: skip
def test_what_is_accepted(seen: Seen, ref: str, reason: str, words: str) -> None:
    decision = decide(seen)
    assert conditions(decision.statuses[ref])["Accepted"] == reason
    assert words in message(decision, ref)


def test_a_model_that_is_refused_hides_no_other() -> None:
    bad = [
        embedder("a", 8, placement={"pools": ["gpu"]}), embedder("b", 7, dimension="x"),
        embedder("c", 6, aliases=["docs"]), raw("Embedder", "d", None, 5),
    ]  # fmt: skip
    decision = decide(known(BUILT, [DOCS, *bad]))
    assert applications(decision) == ["emb-docs", "router"]
    assert conditions(decision.statuses["Embedder/docs"])["Accepted"] == "TrueValid"
    for name in "abcd":
        assert conditions(decision.statuses[f"Embedder/{name}"])["Accepted"] == "FalseInvalid"


def served(serve: Serve, fleet: Manifest, *models: Manifest) -> tuple[ServeState, dict[str, Model]]:
    """Run models until they serve; give what Serve says then, and what is remembered."""
    serve.put(decide(known(fleet, models, serve=ServeState(""))).config or {})
    serve.details()
    state = read_state(serve.details())
    memory = decide(known(fleet, models, serve=state)).manifests or ()
    (kept,) = (each for each in memory if each["metadata"]["name"] == "f-served")
    return state, recalled(kept)


@pytest.mark.parametrize(
    ("fleet", "change", "dimension"),
    [
        (GUEST, {"dimension": 64}, 64),
        # Refused: what served before goes on.
        (GUEST, {"dimension": 16}, 128),
        (GUEST, {"placement": {"pools": ["gpu"]}}, 128),
        (GUEST, {"model": {"source": "/models/other"}}, 128),
        # Its pool is no more: there is nothing to go on with.
        (raw("Fleet", "f", {**GUEST_SPEC, "pools": [{"name": "b"}]}, age=40), {}, None),
    ],
    ids=["better", "worse", "misplaced", "moved", "homeless"],
)
def test_which_version_serves(
    fleet: Manifest, change: dict[str, Any], dimension: int | None
) -> None:
    before = embedder("docs", dimension=128)
    home = GUEST
    if dimension is None:
        before["spec"]["placement"] = {"pools": ["a"]}
        home = raw("Fleet", "f", {**GUEST_SPEC, "pools": [{"name": "a"}]}, age=40)
    state, memory = served(Serve(), home, before)
    assert list(memory) == ["Embedder/docs"]
    after = copy.deepcopy(before)
    after["spec"] |= change
    decision = decide(known(fleet, [after], serve=state, served=memory))
    assert decision.config is not None
    found = {
        each["name"]: each["deployments"][0]["user_config"]["default_dimension"]
        for each in decision.config["applications"]
        if each["name"] != "router"
    }
    assert found == ({} if dimension is None else {"emb-docs": dimension})


UNFIT = Refusal(Reason.INVALID, "spec.dimension is 512: this checkpoint gives 32 to 256.")
SILENT = Refusal(Reason.UNREACHABLE, "Embedder/docs does not say.")


@pytest.mark.parametrize(
    ("misfit", "is_known", "dimension", "accepted"),
    [
        (None, True, 512, "TrueValid"),
        (UNFIT, True, 128, "FalseInvalid"),
        (SILENT, True, 128, "FalseUnreachable"),
        # What nobody can tell of a model that never was seen well is left to its replicas.
        (SILENT, False, 512, "TrueValid"),
        (UNFIT, False, None, "FalseInvalid"),
    ],
    ids=["fits", "misfit", "silent", "silent-and-new", "misfit-and-new"],
)
def test_defaults_that_the_running_model_cannot_do_are_kept_from_it(
    misfit: Refusal | None, is_known: bool, dimension: int | None, accepted: str
) -> None:
    state, memory = served(Serve(), GUEST, embedder("docs", dimension=128))
    seen = known(
        GUEST,
        [embedder("docs", dimension=512)],
        serve=state,
        served=memory if is_known else {},
        misfits={"Embedder/docs": misfit} if misfit else {},
    )
    decision = decide(seen)
    found = [
        each["deployments"][0]["user_config"]["default_dimension"]
        for each in (decision.config or {})["applications"]
        if each["name"] == "emb-docs"
    ]
    assert found == ([] if dimension is None else [dimension])
    assert conditions(decision.statuses["Embedder/docs"])["Accepted"] == accepted
    refused = accepted.startswith("False")
    assert (misfit is not None and message(decision, "Embedder/docs") == misfit.message) is refused


async def test_a_model_that_cannot_be_asked_is_told_of() -> None:
    state, memory = served(Serve(), GUEST, embedder("docs", dimension=128))
    seen = known(GUEST, [embedder("docs", dimension=64)], serve=state, served=memory)
    with socket.socket() as taken:
        # Bound, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        foreseen = await Foreseer().foresee(seen, taken.getsockname())
    decision = decide(foreseen)
    assert conditions(decision.statuses["Embedder/docs"])["Accepted"] == "FalseUnreachable"
    said = message(decision, "Embedder/docs")
    assert said.startswith("Embedder/docs does not say whether it can do the new default: ")
    assert said.endswith("It is asked again.")
    # Nobody is asked about what stays as it is.
    same = known(GUEST, [embedder("docs", dimension=128)], serve=state, served=memory)
    assert await Foreseer().foresee(same, ("127.0.0.1", 1)) is same


def test_a_version_that_goes_on_is_held_to_its_golden_outputs_while_serve_is_silent() -> None:
    rows = {probe: np.array([1, 0], np.float32) for probe in range(8)}
    golden = Golden.of(Role.EMBEDDER, f"v1:{'a' * 32}", "Find", rows)
    goldens = {"Embedder/docs": golden}
    serve = Serve()
    first = decide(known(BUILT, [DOCS], goldens=goldens))
    serve.put(first.config)
    serve.details()
    running = read_state(serve.details())
    proven = decide(known(BUILT, [DOCS], serve=running, goldens=goldens))
    (memory,) = (m for m in proven.manifests or () if m["metadata"]["name"] == "f-served")
    owned = tuple(signed(each, owner(BUILT)) for each in proven.manifests or ())
    typo = embedder("docs", age=9, placement={"pools": ["gpu"]})
    silent, restarted = ServeState("no answer"), ServeState("")
    for state in (running, silent, restarted):
        facts = {"serve": state, "served": recalled(memory), "goldens": goldens, "owned": owned}
        decision = decide(known(BUILT, [typo], **facts))
        assert decision.config == proven.config, state.error
        assert decision.plan.changes == ()
    # Before anything was told there is nothing to be held to.
    lost = decide(known(BUILT, [typo], serve=silent, served=recalled(memory), goldens=goldens))
    assert applications(lost) == applications(proven)
    assert lost.config != proven.config


def with_a_proxy(manifest: Manifest) -> None:
    if manifest["kind"] == "RayService":
        head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
        head["containers"][0]["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy"})


def with_defaults(manifest: Manifest) -> None:
    if manifest["kind"] == "RayService":
        cluster = manifest["spec"]["rayClusterConfig"]
        cluster["headGroupSpec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
        cluster["fieldOfANewerRelease"] = "x"
    elif manifest["kind"] == "Deployment":
        manifest["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "everyones"}]


def another_image(manifest: Manifest) -> None:
    if manifest["kind"] == "RayService":
        head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
        head["containers"][0]["image"] = "other:1"


@pytest.mark.parametrize(
    ("written", "progressing", "fields"),
    [
        (lambda manifest: None, "FalseSettled", []),
        (with_a_proxy, "FalseSettled", []),
        (with_defaults, "FalseSettled", []),
        # What is said has another value: it will be written, and is waited for.
        (another_image, "TrueUpdating", ["spec.image"]),
    ],
    ids=["nobody", "webhook", "defaults", "what-is-ours"],
)
def test_what_others_add_is_no_change_that_is_waited_for(
    written: Callable[[Manifest], None], progressing: str, fields: list[str]
) -> None:
    serve = Serve()
    first = decide(known(BUILT, [DOCS]))
    serve.put(first.config)
    serve.details()
    running = read_state(serve.details())
    owned = []
    for each in decide(known(BUILT, [DOCS], serve=running)).manifests or ():
        live = copy.deepcopy(signed(each, owner(BUILT)))
        states = {"Deployment": {"availableReplicas": 2}, "RayService": READY}
        live["status"] = states.get(each["kind"], {})
        written(live)
        owned.append(live)
    found = decide(known(BUILT, [DOCS], serve=running, owned=tuple(owned)))
    assert conditions(found.statuses["Fleet/f"])["Progressing"] == progressing
    assert [change.field for change in found.plan.changes] == fields
    assert found.moves is bool(fields)


def test_a_moved_contract_is_told() -> None:
    state, memory = served(Serve(), GUEST, DOCS)
    moved = embedder("docs", model={"source": "/models/other"})
    decision = decide(known(GUEST, [moved], serve=state, served=memory))
    found = conditions(decision.statuses["Embedder/docs"])
    assert (found["Accepted"], found["Ready"]) == ("FalseContractChanged", "TrueServing")
    assert "spec.model.source was changed" in message(decision, "Embedder/docs")


def test_the_revision_that_is_told_is_the_one_that_answers() -> None:
    before, after = (
        embedder("docs", model={"source": "me/model", "revision": digit * 40}) for digit in "12"
    )
    state, memory = served(Serve(), GUEST, before)
    decision = decide(known(GUEST, [after], serve=state, served=memory))
    status = decision.statuses["Embedder/docs"]
    assert isinstance(status, ModelStatus)
    assert conditions(status)["Accepted"] == "FalseContractChanged"
    assert status.served_revision == "1" * 40


def test_a_failure_hides_no_verdict() -> None:
    state, memory = served(Serve(), GUEST, DOCS)
    moved = embedder("docs", model={"source": "/models/other"})
    seen = known(GUEST, [moved], serve=state, served=memory)
    decision = decide(seen)
    refusal = Refusal(Reason.NAME_TAKEN, "Service/f is there.")
    for said in (decision.failed(seen, "Serve is busy."), decision.refused_for(seen, refusal)):
        assert message(said, "Embedder/docs") == message(decision, "Embedder/docs")
    assert conditions(said.statuses["Fleet/f"])["Accepted"] == "FalseNameTaken"


def test_a_model_that_is_made_anew_may_have_another_contract() -> None:
    state, memory = served(Serve(), GUEST, DOCS)
    anew = embedder("docs", model={"source": "/models/other"})
    anew["metadata"]["uid"] = "another"
    decision = decide(known(GUEST, [anew], serve=state, served=memory))
    assert conditions(decision.statuses["Embedder/docs"])["Accepted"] == "TrueValid"
    assert decision.config is not None
    assert decision.config["applications"][0]["args"]["source"] == "/models/other"


def test_what_is_refused_while_the_cluster_starts_says_so() -> None:
    misplaced = embedder("docs", placement={"pools": ["gpu"]})
    found = conditions(decide(known(BUILT, [misplaced])).statuses["Embedder/docs"])
    assert (found["Progressing"], found["Ready"]) == ("FalseHeld", "FalseHeld")


def test_only_what_runs_is_remembered() -> None:
    serve = Serve()
    _, memory = served(serve, GUEST, DOCS)
    broken = embedder("docs", instruction={"default": FAILS})
    state, memory = served(serve, GUEST, broken)
    assert memory == {}
    assert state.applications["emb-docs"].status == "DEPLOY_FAILED"


@pytest.mark.parametrize(
    "seen",
    [
        known(raw("Fleet", "f", {}), [DOCS]),
        known(raw("Fleet", "f", None), [DOCS]),
        known(BUILT, [DOCS], kuberay=None),
        known(raw("Fleet", "f", {**BUILT["spec"], "tls": {"secretName": "t"}}), [DOCS]),
        known(
            GUEST, [DOCS],
            serve=read_state({"applications": {"others": {"status": "RUNNING"}}}),
        ),
    ],
    ids=["no-pools", "no-spec", "no-kuberay", "no-secret", "strangers"],
)  # fmt: skip
def test_a_refused_fleet_is_left_as_it_is(seen: Seen) -> None:
    decision = decide(seen)
    assert decision.refusal is not None
    assert (decision.manifests, decision.config, decision.plan.changes) == (None, None, ())
    assert conditions(decision.statuses["Embedder/docs"])["Accepted"] == "TrueValid"


def test_the_same_knowledge_gives_the_same_decision() -> None:
    models = [DOCS, embedder("b", age=3), route("docs")]
    first = decide(known(BUILT, models))
    assert first == decide(known(copy.deepcopy(BUILT), models[::-1]))


@pytest.mark.parametrize(
    ("live", "said", "holds"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, {"a": {}}, True),
        ({}, {"a": []}, True),
        ({}, {"a": None}, True),
        ({}, {"a": ""}, True),
        ({}, {"a": 0}, False),
        ({}, {"a": False}, False),
        ({"a": {"b": 1}}, {"a": {}}, True),
        ({"a": "b"}, {"a": {}}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [2, 1]}, {"a": [1, 2]}, False),
        ({"a": [1]}, {"a": []}, False),
        ({"a": "xy"}, {"a": ["x", "y"]}, False),
        # Things with names: others may add theirs, and order them.
        ({"a": [{"name": "y"}, {"name": "x", "v": 1}]}, {"a": [{"name": "x"}]}, True),
        ({"a": [{"name": "y"}]}, {"a": [{"name": "x"}]}, False),
        ({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "x", "v": 2}]}, False),
        ({"a": [{"name": "x"}, 7]}, {"a": [{"name": "x"}]}, True),
        (None, {"a": 1}, False),
        (None, {}, True),
    ],
)
def test_whether_a_live_object_is_as_said(live: Any, said: Mapping[str, Any], holds: bool) -> None:
    assert covers(live, said) is holds


@pytest.mark.parametrize(
    ("versions", "priority"),
    [
        ([], False),
        ([{"name": "v1alpha1"}], False),
        (WHOLE["spec"]["versions"], False),
    ],
    ids=["none", "old", "loose"],
)
def test_definitions_of_long_ago_have_no_new_field(versions: list[Any], priority: bool) -> None:
    found = KubeRayFeatures.of_crd({"spec": {"versions": versions}})
    assert found == KubeRayFeatures(worker_group_priority=priority)
