"""Which class a change has on Kubernetes, by the manifest's own field."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from operator_cases import BUILT, TARGET, given, only, render_all, rendered

from embedfleet.rendering.plan import Impact
from embedfleet.rendering.serve import render_serve
from embedfleet.resources import parse_manifests
from embedfleet_operator.planning.bounds import bounds_patch
from embedfleet_operator.planning.plan import awaited, plan
from embedfleet_operator.rendering import KubeRayFeatures, Manifest

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
POOL = "name: a, minNodes: 1"
MODEL = "model: {source: embedded/embedder}"


def manifests(
    pools: str = f"{{{POOL}}}", fleet: str = "", model: str = MODEL
) -> tuple[Manifest, ...]:
    text = f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{pools}], {fleet}}}\n"
    if model:
        text += f"---\n{HEAD}kind: Embedder\nmetadata: {{name: docs}}\nspec: {{{model}}}\n"
    return render_all(parse_manifests(text))


def live(given: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Add what the API server, KubeRay and its autoscaler write into objects that run."""
    found = json.loads(json.dumps(given))
    for each in found:
        each["metadata"] |= {"uid": "1", "resourceVersion": "7", "generation": 3}
    service = only(tuple(found), "RayService")
    service["metadata"]["finalizers"] = ["ray.io/rayservice-finalizer"]
    service["status"] = {"numServeEndpoints": 2}
    cluster = service["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]
    head["metadata"] |= {"creationTimestamp": None}
    head["metadata"]["annotations"]["ray.io/ft-enabled"] = "false"
    head["metadata"]["labels"]["ray.io/serve"] = "true"
    for group in cluster["workerGroupSpecs"]:
        group["replicas"] += 2
        group["scaleStrategy"] = {"workersToDelete": ["f-abc-a-worker-x"]}
        group["resources"] = {}
        group["template"]["metadata"]["creationTimestamp"] = None
    pod = only(tuple(found), "Deployment")["spec"]["template"]["spec"]
    pod["dnsPolicy"] = "ClusterFirst"
    pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    only(tuple(found), "Service")["spec"]["clusterIP"] = "10.0.0.7"
    return tuple(found)


@pytest.mark.parametrize("case", BUILT)
def test_what_others_write_is_no_change(case: str) -> None:
    found = plan(live(rendered(case)), rendered(case))
    assert found.changes == ()
    assert found.impact is Impact.NO_CHANGE


@pytest.mark.parametrize("case", BUILT)
def test_a_first_apply_only_starts(case: str) -> None:
    assert plan((), rendered(case)).impact is Impact.START


@pytest.mark.parametrize(
    ("pools", "field", "impact"),
    [
        # Left out of KubeRay's hash: the running cluster is kept.
        ("{name: a, minNodes: 1, maxNodes: 5}", "spec.pools[0].maxNodes", Impact.RECONFIGURE),
        ("{name: a, minNodes: 0}", "spec.pools[0].minNodes", Impact.RECONFIGURE),
        (
            "{name: a, minNodes: 1, tolerations: [{key: k, operator: Exists}]}",
            "spec.pools[0].tolerations", Impact.RECONFIGURE,
        ),
        # Added at the end: joins the running cluster.
        (f"{{{POOL}}}, {{name: b}}", "spec.pools[1]", Impact.START),
        # Anywhere else, and everything in a node.
        (f"{{name: b}}, {{{POOL}}}", "spec.pools", Impact.NEW_CLUSTER),
        ("{name: b, minNodes: 1}", "spec.pools", Impact.NEW_CLUSTER),
        ("{name: a, minNodes: 1, cpusPerNode: 9}", "spec.pools[0].cpusPerNode", Impact.NEW_CLUSTER),
        (
            "{name: a, minNodes: 1, memoryGibPerNode: 9}", "spec.pools[0].memoryGibPerNode",
            Impact.NEW_CLUSTER,
        ),
        (
            "{name: a, minNodes: 1, nodeSelector: {k: v}}", "spec.pools[0].nodeSelector",
            Impact.NEW_CLUSTER,
        ),
    ],
)  # fmt: skip
def test_class_of_a_change_of_pools(pools: str, field: str, impact: Impact) -> None:
    found = plan(live(manifests()), manifests(pools, model=MODEL))
    cluster = [c for c in found.changes if c.resource == "Fleet/f"]
    assert [(c.field, c.impact) for c in cluster] == [(field, impact)]


def test_gpus_of_a_pool_are_named_as_the_manifest_names_them() -> None:
    def gpus(kind: str, count: int) -> tuple[Manifest, ...]:
        return manifests(f"{{name: a, accelerator: {kind}, gpusPerNode: {count}}}")

    found = plan(live(gpus("X", 1)), gpus("Y", 2))
    assert {c.field: (c.before, c.after) for c in found.changes} == {
        "spec.pools[0].accelerator": ("X", "Y"),
        "spec.pools[0].gpusPerNode": ("1", "2"),
    }
    assert found.impact is Impact.NEW_CLUSTER


@pytest.mark.parametrize(
    ("fleet", "fields", "impact"),
    [
        ("head: {cpus: 3}", {"spec.head.cpus"}, Impact.NEW_CLUSTER),
        ("head: {memoryGib: 3}", {"spec.head.memoryGib"}, Impact.NEW_CLUSTER),
        ("rayVersion: 2.60.1", {"spec.rayVersion"}, Impact.NEW_CLUSTER),
        ("image: other:1", {"spec.image"}, Impact.NEW_CLUSTER),
        ("imagePullSecrets: [r.example]", {"spec.imagePullSecrets"}, Impact.NEW_CLUSTER),
        ("serviceAccountName: reader", {"spec.serviceAccountName"}, Impact.NEW_CLUSTER),
        (
            "auth: {tokenSecretName: s}", {"spec.auth", "spec.auth.tokenSecretName"},
            Impact.NEW_CLUSTER,
        ),
        (
            'gcsFaultTolerance: {redisAddress: "r:1"}', {"spec.gcsFaultTolerance.redisAddress"},
            Impact.NEW_CLUSTER,
        ),
        ("tls: {secretName: s}", {"spec.grpc, spec.tls"}, Impact.ROLL_REPLICAS),
        (
            "grpc: {maxMessageBytes: 65536}", {"spec.grpc, spec.tls", "spec.grpc.maxMessageBytes"},
            Impact.ROLL_REPLICAS,
        ),
        ("grpc: {port: 443}", {"spec.grpc.port"}, Impact.RECONFIGURE),
    ],
)  # fmt: skip
def test_class_of_a_change_of_the_fleet(fleet: str, fields: set[str], impact: Impact) -> None:
    found = plan(live(manifests()), manifests(fleet=fleet))
    assert {change.field for change in found.changes} == fields
    assert found.impact is impact


def test_what_serve_reads_at_start_makes_a_new_cluster() -> None:
    after = copy.deepcopy(manifests())
    head = only(after, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]
    head["template"]["metadata"]["annotations"]["embedfleet.io/serve-options"] = "other"
    found = plan(live(manifests()), after)
    assert [(c.field, c.impact) for c in found.changes] == [
        ("what Serve reads when it starts", Impact.NEW_CLUSTER)
    ]


def test_an_operator_of_another_release_builds_a_new_cluster() -> None:
    text = f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{{{POOL}}}]}}\n"
    before = render_all(parse_manifests(text))
    newer = replace(TARGET, image="registry.example/embedfleet:0.2.0")
    found = plan(live(before), render_all(parse_manifests(text), newer))
    assert found.of("Fleet/f") is Impact.NEW_CLUSTER
    assert "nodes twice" in str(found)


def test_a_kuberay_that_learns_priorities_says_so_before_it_rebuilds() -> None:
    text = f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {{pools: [{{{POOL}}}]}}\n"
    newer = replace(TARGET, kuberay=KubeRayFeatures(worker_group_priority=True))
    found = plan(live(render_all(parse_manifests(text))), render_all(parse_manifests(text), newer))
    assert [(c.field, c.impact) for c in found.changes] == [
        ("rayClusterConfig.workerGroupSpecs.priority", Impact.NEW_CLUSTER)
    ]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (f"{MODEL}, dimension: 64", {"Embedder/docs": Impact.RECONFIGURE}),
        (f"{MODEL}, placement: {{cpus: 2}}", {"Embedder/docs": Impact.ROLL_REPLICAS}),
        (f"{MODEL}, maxTokens: 64", {"Embedder/docs": Impact.RESTART_APP}),
        # Names are also the router's and the edge's.
        (
            f"{MODEL}, aliases: [x]",
            {"Embedder/docs": Impact.RECONFIGURE, "Fleet/f": Impact.ROLL_REPLICAS},
        ),
        ("", {"Embedder/docs": Impact.REMOVE, "Fleet/f": Impact.ROLL_REPLICAS}),
    ],
)
def test_models_are_judged_as_on_a_laptop(model: str, expected: dict[str, Impact]) -> None:
    found = plan(live(manifests()), manifests(model=model))
    assert {c.resource: found.of(c.resource) for c in found.changes} == expected


def test_contract_of_an_accepted_model_is_not_changed() -> None:
    before = live(manifests())
    after = manifests(model="model: {source: /models/other}")
    assert plan(before, after, immutable={"emb-docs"}).refused
    assert not plan(before, after).refused


def test_a_lost_edge_is_started_again() -> None:
    left = tuple(each for each in live(manifests()) if each["kind"] != "Deployment")
    found = plan(left, manifests())
    assert [(c.field, c.impact) for c in found.changes] == [("edge", Impact.START)]


def ray_cluster(given: tuple[Manifest, ...]) -> dict[str, Any]:
    """Make the RayCluster that KubeRay makes of a RayService."""
    spec = only(live(given), "RayService")["spec"]["rayClusterConfig"]
    return {"kind": "RayCluster", "spec": spec}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        (f"{{{POOL}}}", ()),
        (
            "{name: a, minNodes: 2, maxNodes: 5}",
            (
                {"op": "test", "path": "/spec/workerGroupSpecs/0/groupName", "value": "a"},
                {"op": "add", "path": "/spec/workerGroupSpecs/0/minReplicas", "value": 2},
                {"op": "add", "path": "/spec/workerGroupSpecs/0/maxReplicas", "value": 5},
            ),
        ),
        (
            f"{{{POOL}, tolerations: [{{key: k, operator: Exists}}]}}",
            (
                {"op": "test", "path": "/spec/workerGroupSpecs/0/groupName", "value": "a"},
                {
                    "op": "add",
                    "path": "/spec/workerGroupSpecs/0/template/spec/tolerations",
                    "value": [{"key": "k", "operator": "Exists"}],
                },
            ),
        ),
        # KubeRay itself adds a group at the end, and with it all bounds.
        (f"{{{POOL}}}, {{name: b}}", ()),
    ],
    ids=["same", "bounds", "tolerations", "one-more"],
)
def test_bounds_reach_the_cluster_that_runs(
    pools: str, expected: tuple[dict[str, Any], ...]
) -> None:
    wanted = only(manifests(pools), "RayService")
    assert bounds_patch(ray_cluster(manifests()), wanted) == expected


def test_a_cluster_that_ran_before_is_planned_from_what_its_serve_runs() -> None:
    manifests = rendered("existing-cluster")
    config = render_serve(given("existing-cluster").only_fleet(), given("existing-cluster").models)
    started = plan((), manifests, serve=(None, config))
    assert {change.impact for change in started.changes} == {Impact.START}
    assert plan(manifests, manifests, serve=(config, config)).changes == ()
    router = {**config, "applications": config["applications"][-1:]}
    removed = plan(manifests, manifests, serve=(config, router))
    assert removed.of("Embedder/docs") is Impact.REMOVE


def serve_of(found: tuple[Manifest, ...]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(only(found, "RayService")["spec"]["serveConfigV2"])
    return config


def deployed(found: tuple[Manifest, ...]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in serve_of(found)["applications"]}


INSTRUCTED = f"{MODEL}, instruction: {{default: Find it}}"


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        # KubeRay has not carried it on: nothing may look settled.
        (deployed(manifests()), {"Embedder/docs": Impact.RECONFIGURE}),
        (deployed(manifests(model=INSTRUCTED)), {}),
        # A cluster that is new runs nothing yet, and what Serve never heard of starts.
        ({}, {}),
        (deployed(manifests(model="")), {}),
    ],
    ids=["not-carried-on", "runs", "new-cluster", "new-model"],
)
def test_what_serve_does_not_run_yet_is_awaited(
    running: dict[str, dict[str, Any]], expected: dict[str, Impact]
) -> None:
    wanted = manifests(model=INSTRUCTED)
    written = plan(live(wanted), wanted)
    found = awaited(written, running, serve_of(wanted))
    models = [each for each in found.changes if each.resource.startswith("Embedder/")]
    assert {each.resource: each.impact for each in models} == expected
    assert not {each.resource for each in models} & set(found.unchanged)
