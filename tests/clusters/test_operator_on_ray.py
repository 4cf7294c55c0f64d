"""From kubectl to vectors on a real Ray cluster without KubeRay: applied, changed, scaled, gone."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import control_plane
import go_tools
import numpy as np
import pytest
import yaml
from control_plane import ControlPlane, wait
from edge_harness import free_port, run_haproxy
from operator_process import Kubectl, RunningOperator, condition, operator
from ray_cluster import TOKEN, RayCluster, ray_cluster

from embedfleet.client import Client
from embedfleet.engine import load_embedder
from embedfleet.errors import InvalidRequest
from embedfleet.rendering.edge import CONFIG_FILE, MAP_FILE, EdgeConfig
from embedfleet.rendering.serve_state import ApplicationStatus, summarize
from embedfleet_operator.crds.files import files

REASON = control_plane.missing() or go_tools.missing("kubectl")
pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(600),
]

NAMESPACE = "search"
TEXTS = ["A hand-painted vase.", "花瓶", "def area(r): return 3.14159 * r ** 2"]
SMALL = {"placement": {"cpus": 0.4}}
DOCS: dict[str, Any] = {
    "kind": "Embedder",
    "metadata": {"name": "docs"},
    "spec": {
        "model": {"source": "embedded/embedder"},
        "scaling": {"minReplicas": 1, "maxReplicas": 2},
        **SMALL,
    },
}


def changed(**spec: Any) -> dict[str, Any]:
    return {**DOCS, "spec": {**DOCS["spec"], **spec}}


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        with cluster.serve() as serve:
            serve.wait_reachable(120)
        yield cluster


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with (
        tempfile.TemporaryDirectory(prefix="ef-operator-") as folder,
        control_plane.control_plane(Path(folder)) as running,
    ):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        running.apply(f"/api/v1/namespaces/{NAMESPACE}", namespace)
        running.install([yaml.safe_load(text) for text in files().values()])
        yield running


@pytest.fixture(scope="module")
def running(plane: ControlPlane) -> Iterator[RunningOperator]:
    with operator(plane, "admin-token", f"--lease-namespace={NAMESPACE}") as started:
        yield started


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane, running: RunningOperator) -> Kubectl:
    return Kubectl(plane, NAMESPACE)


def application(ray: RayCluster, name: str) -> ApplicationStatus:
    return summarize(name, ray.applications()[name])


def settled(kubectl: Kubectl, what: str = "embedder/docs") -> bool:
    """Whether the operator has seen the last change and nothing of it is left to do."""
    resource = kubectl.get(what)
    seen = resource["status"].get("observedGeneration") == resource["metadata"]["generation"]
    return seen and condition(resource, "Progressing")[:2] == ("False", "Settled")


@contextmanager
def edge(kubectl: Kubectl) -> Iterator[Client]:
    """Run the edge that was rendered, as its pod would, and connect to it."""
    data = kubectl.get("configmap/guest-edge")["data"]
    port, metrics = free_port(), free_port()
    config = data[CONFIG_FILE].replace(":9000 ", f":{port} ").replace(":9101", f":{metrics}")
    with (
        tempfile.TemporaryDirectory(prefix="ef-edge-") as folder,
        run_haproxy(Path(folder), EdgeConfig(config, data[MAP_FILE]), port),
        Client(f"127.0.0.1:{port}") as client,
    ):
        yield client


def test_a_missing_secret_is_told_and_then_found(kubectl: Kubectl, ray: RayCluster) -> None:
    existing = {
        "dashboard": ray.dashboard,
        "serveHost": "127.0.0.1",
        "serveGrpcPort": ray.ports.serve_grpc,
        "serveHttpPort": ray.ports.serve_http,
    }
    spec = {"existingCluster": existing, "auth": {"tokenSecretName": "ray-token"}}
    kubectl.apply({"kind": "Fleet", "metadata": {"name": "guest"}, "spec": spec}, DOCS)

    def refused() -> bool:
        return condition(kubectl.get("fleet/guest"), "Accepted")[:2] == ("False", "SecretMissing")

    wait(refused, "the refusal")
    assert "spec.auth.tokenSecretName is ray-token" in str(kubectl.get("fleet/guest")["status"])
    assert ray.applications() == {}
    encoded = base64.b64encode(TOKEN.encode()).decode()
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ray-token"},
        "data": {"auth_token": encoded},
    }  # fmt: skip
    kubectl("apply", "--filename=-", given=json.dumps(secret))
    kubectl("wait", "--for=condition=Ready", "embedder/docs", "--timeout=240s")


def test_vectors_come_through_the_rendered_edge(kubectl: Kubectl) -> None:
    wait(lambda: "contractHash" in kubectl.get("embedder/docs")["status"], "the contract")
    status = kubectl.get("embedder/docs")["status"]
    expected = load_embedder("embedded/embedder").embed(TEXTS, "DOCUMENT")
    with edge(kubectl) as client:
        answer = client.embed_documents("docs", TEXTS)
    np.testing.assert_allclose(answer.vectors, expected, atol=1e-5)
    assert answer.provenance.contract_hash == status["contractHash"]
    golden = json.loads(kubectl.get("configmap/docs-emb-golden")["data"]["golden.json"])
    assert golden["contractHash"] == status["contractHash"]
    assert status["replicas"] == status["readyReplicas"] == 1
    assert status["fleet"] == "guest"


def test_a_cluster_that_has_its_fleet_takes_no_other(kubectl: Kubectl, ray: RayCluster) -> None:
    before = ray.applications()
    spec = kubectl.get("fleet/guest")["spec"]
    # The same dashboard by another address, which only Serve can tell.
    existing = {
        **spec["existingCluster"], "dashboard": ray.dashboard.replace("127.0.0.1", "localhost"),
    }  # fmt: skip
    assert existing["dashboard"] != spec["existingCluster"]["dashboard"]
    kubectl.apply(
        {"kind": "Fleet", "metadata": {"name": "another"},
         "spec": {**spec, "existingCluster": existing}}
    )  # fmt: skip

    def refused() -> bool:
        return condition(kubectl.get("fleet/another"), "Accepted")[0] == "False"

    wait(refused, "the refusal")
    message = condition(kubectl.get("fleet/another"), "Accepted")[2]
    assert "runs applications of Fleet search/guest: emb-docs, router." in message
    kubectl("delete", "fleet/another", "--timeout=60s")
    wait(lambda: settled(kubectl), "rest")
    assert ray.applications().keys() == before.keys()
    assert application(ray, "emb-docs").pids
    assert condition(kubectl.get("fleet/guest"), "Accepted")[:2] == ("True", "Valid")


def test_golden_outputs_are_given_to_replicas_without_a_restart(
    kubectl: Kubectl, ray: RayCluster
) -> None:
    before = application(ray, "emb-docs").pids
    wait(lambda: condition(kubectl.get("embedder/docs"), "Verified")[0] == "True", "Verified")
    wait(lambda: settled(kubectl), "rest")
    assert application(ray, "emb-docs").pids == before


def test_replicas_that_run_are_spared_golden_outputs_they_would_refuse(
    kubectl: Kubectl, ray: RayCluster
) -> None:
    before = application(ray, "emb-docs").pids
    recorded = json.loads(kubectl.get("configmap/docs-emb-golden")["data"]["golden.json"])
    vectors = np.frombuffer(base64.b64decode(recorded["outputs"]), "<f2")
    swapped = vectors.reshape(-1, recorded["dimension"])[::-1].tobytes()
    other = {**recorded, "outputs": base64.b64encode(swapped).decode()}
    pinned = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pinned"},
        "data": {"golden.json": json.dumps(other)},
    }  # fmt: skip
    kubectl("apply", "--filename=-", given=json.dumps(pinned))
    kubectl.apply(changed(verification={"goldenConfigMapName": "pinned"}))
    wait(lambda: condition(kubectl.get("embedder/docs"), "Verified")[1] == "Drifted", "Drifted")
    docs = kubectl.get("embedder/docs")
    assert "cosine" in condition(docs, "Verified")[2]
    assert docs["status"]["verification"]["worstCosine"] < 0.99
    assert condition(docs, "Ready")[0] == "True"
    assert application(ray, "emb-docs").pids == before
    kubectl.apply(changed())
    wait(lambda: condition(kubectl.get("embedder/docs"), "Verified")[0] == "True", "Verified")
    assert application(ray, "emb-docs").pids == before


def test_a_default_that_the_model_cannot_do_is_kept_from_running_replicas(
    kubectl: Kubectl, ray: RayCluster
) -> None:
    before = application(ray, "emb-docs").pids
    kubectl.apply(changed(dimension=512))
    wait(lambda: condition(kubectl.get("embedder/docs"), "Accepted")[0] == "False", "the refusal")
    docs = kubectl.get("embedder/docs")
    assert "spec.dimension is 512: this checkpoint gives" in condition(docs, "Accepted")[2]
    assert condition(docs, "Ready")[0] == "True"
    kubectl.apply(changed())
    wait(lambda: condition(kubectl.get("embedder/docs"), "Accepted")[0] == "True", "Accepted")
    assert application(ray, "emb-docs").pids == before


def test_new_dimensions_reach_running_replicas(kubectl: Kubectl, ray: RayCluster) -> None:
    before = application(ray, "emb-docs").pids
    native = len(load_embedder("embedded/embedder").embed(["a"], "DOCUMENT")[0])
    kubectl.apply(changed(allowedDimensions=[native, 64], dimension=64))
    wait(lambda: settled(kubectl), "the change")
    with edge(kubectl) as client:

        def refused() -> bool:
            try:
                client.embed_documents("docs", TEXTS, dimension=32)
            except InvalidRequest as error:
                return "dimension is 32" in error.message
            return False

        wait(refused, "dimension 32 to be refused")
        assert client.embed_documents("docs", TEXTS).vectors.shape == (len(TEXTS), 64)
    # As planned: an Event said so before it was done.
    assert application(ray, "emb-docs").pids == before
    events = kubectl("get", "events.events.k8s.io", "--output=json")
    notes = [each["note"] for each in json.loads(events)["items"] if "note" in each]
    (said,) = [note for note in notes if "spec.allowedDimensions" in note]
    assert re.search(r"spec\.allowedDimensions: unset -> .* \(Reconfigure\)", said)


def test_kubectl_scales(kubectl: Kubectl, ray: RayCluster) -> None:
    (pid,) = application(ray, "emb-docs").pids
    kubectl("scale", "embedder/docs", "--replicas=2")
    wait(lambda: kubectl.get("embedder/docs")["status"].get("readyReplicas") == 2, "2 replicas")
    assert pid in application(ray, "emb-docs").pids
    refused = kubectl.try_to("scale", "embedder/docs", "--replicas=3")
    assert "maxReplicas" in refused.stderr
    kubectl("scale", "embedder/docs", "--replicas=1")


def test_a_broken_model_tells_its_error_and_hurts_nobody(kubectl: Kubectl, ray: RayCluster) -> None:
    before = application(ray, "emb-docs").pids
    broken = {"model": {"source": "/nowhere/at-all"}, **SMALL}
    kubectl.apply({"kind": "Embedder", "metadata": {"name": "lost"}, "spec": broken})

    def failed() -> bool:
        return "lastFailure" in kubectl.get("embedder/lost").get("status", {})

    wait(failed, "the failure")
    status = kubectl.get("embedder/lost")["status"]
    assert status["lastFailure"]["reason"] == "CheckpointError"
    assert "/nowhere/at-all" in status["lastFailure"]["message"]
    assert condition(kubectl.get("embedder/lost"), "Ready")[:2] == ("False", "Failed")
    assert condition(kubectl.get("embedder/docs"), "Ready")[0] == "True"
    assert set(application(ray, "emb-docs").pids) & set(before)
    assert condition(kubectl.get("fleet/guest"), "Degraded")[0] == "True"
    kubectl("delete", "embedder/lost", "--timeout=60s")

    wait(lambda: "emb-lost" not in ray.applications(), "its application to stop")


def test_a_deleted_fleet_leaves_the_cluster_empty(kubectl: Kubectl, ray: RayCluster) -> None:
    assert kubectl.get("fleet/guest")["metadata"]["finalizers"] == ["embedfleet.io/serve"]
    kubectl("delete", "fleet/guest", "--timeout=300s")

    wait(lambda: ray.applications() == {}, "Serve to stop")
    assert ray.processes()
    assert condition(kubectl.get("embedder/docs"), "Accepted")[:2] == ("False", "FleetMissing")
