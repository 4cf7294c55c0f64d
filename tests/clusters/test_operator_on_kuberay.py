"""From kubectl to the pods that KubeRay makes, with the rights of the chart's Role and no more."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import control_plane
import go_tools
import kuberay
import pytest
import yaml
from charts import CHART, CRDS, IMAGES, helm
from control_plane import ControlPlane, wait
from operator_process import Kubectl, RunningOperator, condition, operator

REASON = kuberay.missing() or go_tools.missing("helm", "kubectl", "kube-controller-manager")
pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(600),
]

NAMESPACE = "search"
REST_SECONDS = 120
FLEET = {
    "kind": "Fleet",
    "metadata": {"name": "search"},
    "spec": {"pools": [{"name": "cpu", "minNodes": 1, "maxNodes": 2}]},
}
DOCS = {
    "kind": "Embedder",
    "metadata": {"name": "docs"},
    "spec": {"model": {"source": "embedded/embedder"}},
}
RELEVANCE = {
    "kind": "Reranker",
    "metadata": {"name": "relevance"},
    "spec": {"model": {"source": "embedded/reranker"}},
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with (
        tempfile.TemporaryDirectory(prefix="ef-operator-") as folder,
        control_plane.control_plane(Path(folder)) as running,
    ):
        for name in ("system", NAMESPACE):
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            running.apply(f"/api/v1/namespaces/{name}", manifest)
        for release, chart, values in (("kinds", CRDS, {}), ("embedfleet", CHART, IMAGES)):
            done = helm(
                "install", release, chart, "--namespace=system",
                values=values, kubeconfig=running.kubeconfig(),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        with control_plane.controllers(running), kuberay.kuberay(running):
            yield running


@pytest.fixture(scope="module")
def running(plane: ControlPlane) -> Iterator[RunningOperator]:
    token = plane.token("system", "embedfleet-operator")
    with operator(plane, token, "--lease-namespace=system") as started:
        yield started


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    return Kubectl(plane, NAMESPACE)


def everything(plane: ControlPlane) -> dict[str, str]:
    """Give the version of every object in the namespace but Events, and of KubeRay's clusters."""
    paths = [
        *(f"/apis/embedfleet.io/v1alpha1/namespaces/{NAMESPACE}/{each}"
          for each in ("fleets", "embedders", "rerankers", "modelroutes", "modelcaches")),
        *(f"/apis/ray.io/v1/namespaces/{NAMESPACE}/{each}"
          for each in ("rayservices", "rayclusters")),
        *(f"/api/v1/namespaces/{NAMESPACE}/{each}"
          for each in ("configmaps", "services", "pods", "persistentvolumeclaims")),
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
        f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
        f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    ]  # fmt: skip
    found = {}
    with plane.client() as client:
        for path in paths:
            for each in client.get(path).raise_for_status().json()["items"]:
                found[f"{path}/{each['metadata']['name']}"] = each["metadata"]["resourceVersion"]
    return found


def own(found: dict[str, str]) -> set[str]:
    """Keep what is made for fleets: others' defaults are in every namespace."""
    return {path for path in found if not path.endswith("/kube-root-ca.crt")}


def test_a_fleet_becomes_a_cluster_of_kuberays(kubectl: Kubectl, running: RunningOperator) -> None:
    kubectl.apply(FLEET, DOCS, RELEVANCE)

    def clustered() -> bool:
        return "search" in kubectl("get", "raycluster", "--output=name") and bool(
            kubectl("get", "pods", "--selector=ray.io/node-type=head", "--output=name")
        )

    def starts() -> bool:
        # The fleet may have been seen before its models.
        return "emb-docs" in kubectl.get("rayservice/search")["spec"]["serveConfigV2"] and all(
            condition(kubectl.get(each), "Ready")[:2] == ("False", "Starting")
            for each in ("fleet/search", "embedder/docs", "reranker/relevance")
        )

    wait(clustered, "KubeRay's cluster and its head")
    wait(starts, "the models to be known")
    service = kubectl.get("rayservice/search")
    assert "emb-docs" in service["spec"]["serveConfigV2"]
    (owner,) = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Fleet", "search", True)
    for what in ("fleet/search", "embedder/docs", "reranker/relevance"):
        resource = kubectl.get(what)
        conditions = {each["type"] for each in resource["status"]["conditions"]}
        assert conditions == {
            "Accepted", "Cached", "Verified", "Progressing", "Ready", "Warm", "Degraded",
        }  # fmt: skip
        assert condition(resource, "Accepted")[:2] == ("True", "Valid"), resource
        assert condition(resource, "Ready")[:2] == ("False", "Starting"), resource
        assert resource["status"]["endpoint"] == "search.search.svc.cluster.local:9000"
    events = kubectl("get", "events.events.k8s.io", "--output=yaml")
    assert "Embedder/docs: Start" in events
    assert "Forbidden" not in running.log.read_text()
    columns = kubectl("get", "embedders").splitlines()
    assert columns[0].split()[:4] == ["NAME", "READY", "MODEL", "DIMENSION"]
    assert columns[1].split()[:3] == ["docs", "False", "embedded/embedder"]


def test_a_broken_model_is_left_out_and_told_why(kubectl: Kubectl) -> None:
    kubectl.apply(
        {**DOCS, "metadata": {"name": "lost"},
         "spec": {**DOCS["spec"], "placement": {"pools": ["gpu"]}}}
    )  # fmt: skip
    wait(lambda: bool(condition(kubectl.get("embedder/lost"), "Accepted")[0]), "a verdict")
    status, reason, message = condition(kubectl.get("embedder/lost"), "Accepted")
    assert (status, reason) == ("False", "Invalid")
    assert "spec.placement.pools[0] is gpu: is not a pool of Fleet/search; known: cpu." in message
    config = kubectl.get("rayservice/search")["spec"]["serveConfigV2"]
    assert "emb-lost" not in config
    assert "emb-docs" in config
    kubectl("delete", "embedder/lost", "--wait=true", "--timeout=60s")


def test_nothing_is_written_at_rest(
    plane: ControlPlane, kubectl: Kubectl, running: RunningOperator
) -> None:
    wait(lambda: quiet(plane), "everything to settle")
    before = everything(plane)
    time.sleep(REST_SECONDS)
    after = everything(plane)
    assert {path for path in after if after[path] != before.get(path)} == set()
    assert before.keys() == after.keys()
    assert "embedfleet_operator_reconcile_errors_total{" not in running.scrape()


def quiet(plane: ControlPlane) -> bool:
    before = everything(plane)
    time.sleep(5)
    return everything(plane) == before


WIDER = {**FLEET, "spec": {"pools": [{"name": "cpu", "minNodes": 1, "maxNodes": 5}]}}


def planned(plane: ControlPlane, *resources: dict[str, Any]) -> str:
    """Ask the command line what applying resources would do."""
    text = yaml.safe_dump_all({"apiVersion": "embedfleet.io/v1alpha1", **r} for r in resources)
    done = subprocess.run(
        [Path(sys.executable).with_name("embedfleet"), "plan", "--file=-", "--kubernetes",
         f"--kubeconfig={plane.kubeconfig()}", f"--namespace={NAMESPACE}"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plan_says_what_would_be_done_and_does_nothing(plane: ControlPlane) -> None:
    before = everything(plane)
    assert "spec.pools[0].maxNodes: 2 -> 5 (Reconfigure)" in planned(plane, WIDER)
    image = {**FLEET, "spec": {**FLEET["spec"], "image": "registry.example/other:1"}}
    said = planned(plane, image)
    assert said.startswith("Fleet/search: NewCluster")
    assert "until then the fleet needs its nodes twice" in " ".join(said.split())
    surged = {**DOCS, "spec": {**DOCS["spec"], "rollout": {"maxSurgePercent": 100}}}
    assert "Embedder/docs: Reconfigure" in planned(plane, surged)
    lost = {**DOCS, "metadata": {"name": "lost"}, "spec": {**DOCS["spec"], "fleet": "search"}}
    lost["spec"] = {**lost["spec"], "placement": {"pools": ["gpu"]}}
    assert "Embedder/lost: not accepted\n    spec.placement.pools[0] is gpu" in planned(plane, lost)
    # One more fleet moves no model, unless the model says so; both fleets are told of.
    more = {**FLEET, "metadata": {"name": "another"}}
    said = planned(plane, more)
    assert "Fleet/another: Start" in said
    assert "NoChange: Embedder/docs, Fleet/search, Reranker/relevance" in said
    said = planned(plane, more, {**DOCS, "spec": {**DOCS["spec"], "fleet": "another"}})
    assert "Embedder/docs: Start" in said
    assert "Embedder/docs: Remove" in said
    assert everything(plane) == before


def test_bounds_reach_the_cluster_that_runs(kubectl: Kubectl) -> None:
    (cluster,) = kubectl("get", "raycluster", "--output=name").split()
    kubectl.apply(WIDER)

    def bounds() -> list[Any]:
        found = kubectl.get(cluster)["spec"]["workerGroupSpecs"]
        return [(each["minReplicas"], each["maxReplicas"]) for each in found]

    wait(lambda: bounds() == [(1, 5)], "the new bounds")
    assert kubectl("get", "raycluster", "--output=name").split() == [cluster]
    events = kubectl("get", "events.events.k8s.io", "--output=yaml")
    assert "spec.pools[0].maxNodes: 2 -> 5 (Reconfigure)" in events


def test_what_determines_vectors_cannot_be_changed(kubectl: Kubectl) -> None:
    changed = {**DOCS, "spec": {"model": {"source": "/another"}}}
    changed = {"apiVersion": "embedfleet.io/v1alpha1", **changed}
    refused = kubectl.try_to("apply", "--filename=-", given=yaml.safe_dump(changed))
    assert refused.returncode == 1
    assert "determines the outputs of" in refused.stderr


def test_deleted_in_any_order_nothing_is_left(plane: ControlPlane, kubectl: Kubectl) -> None:
    kubectl("delete", "fleet/search", "--wait=true", "--timeout=120s")
    left = {"embedders/docs", "rerankers/relevance"}

    def gone() -> bool:
        names = {"/".join(path.split("/")[-2:]) for path in own(everything(plane))}
        return names == left

    wait(gone, "the garbage collector")

    def orphaned() -> bool:
        return condition(kubectl.get("embedder/docs"), "Accepted")[:2] == ("False", "FleetMissing")

    wait(orphaned, "the models to tell that their fleet is gone")
    kubectl("delete", "embedder/docs", "reranker/relevance", "--wait=true", "--timeout=60s")
    assert own(everything(plane)) == set()
