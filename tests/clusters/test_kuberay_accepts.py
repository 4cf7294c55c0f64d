"""KubeRay's own operator takes our RayServices and makes the pods that they ask for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kuberay
import pytest
from control_plane import ControlPlane, control_plane, wait
from operator_cases import CASES, TARGET, given, only

from embedfleet_operator.rendering import Manifest, render

REASON = kuberay.missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there")

NAMESPACE = "search"
RAY = f"/apis/ray.io/v1/namespaces/{NAMESPACE}"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with (
        tempfile.TemporaryDirectory(prefix="ef-kuberay-") as folder,
        control_plane(Path(folder)) as running,
    ):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        running.apply(f"/api/v1/namespaces/{NAMESPACE}", namespace)
        with kuberay.kuberay(running):
            yield running


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    with plane.client() as connected:
        yield connected


SERVED = [case for case in CASES if given(case).only_fleet().spec.existing_cluster is None]


def service_of(case: str) -> Manifest:
    manifests = given(case)
    return only(render(manifests.only_fleet(), manifests.models, TARGET), "RayService")


def cluster_of(client: httpx.Client, service: str) -> dict[str, Any]:
    """Wait for the cluster that KubeRay makes for a service."""
    found: list[dict[str, Any]] = []

    def made() -> bool:
        items = client.get(f"{RAY}/rayclusters").json()["items"]
        found[:] = [
            each
            for each in items
            if each["metadata"]["labels"]["ray.io/originated-from-cr-name"] == service
        ]
        return bool(found)

    wait(made, f"the cluster of {service}")
    (cluster,) = found
    return cluster


def pods_of(client: httpx.Client, cluster: str, wanted: int) -> list[dict[str, Any]]:
    """Wait for a cluster's pods."""
    found: list[dict[str, Any]] = []

    def made() -> bool:
        query = {"labelSelector": f"ray.io/cluster={cluster}"}
        found[:] = client.get(PODS, params=query).json()["items"]
        return len(found) == wanted

    wait(made, f"{wanted} pods of {cluster}")
    return found


def named(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in items}


def assert_made_from(pod: dict[str, Any], template: dict[str, Any]) -> None:
    """What we wrote is in the pod as it was written; KubeRay adds to it."""
    metadata, spec = pod["metadata"], pod["spec"]
    for part, values in template["metadata"].items():
        assert metadata[part].items() >= values.items()
    (written,) = template["spec"]["containers"]
    container = spec["containers"][0]
    for field in ("name", "image", "resources", "securityContext"):
        assert container[field] == written[field]
    for field in ("ports", "env", "volumeMounts"):
        there = named(container[field])
        for name, value in named(written[field]).items():
            assert there[name] == value
    for field in ("enableServiceLinks", "restartPolicy", "securityContext"):
        assert spec[field] == template["spec"][field]
    assert spec.get("nodeSelector", {}) == template["spec"].get("nodeSelector", {})
    asked = template["spec"].get("tolerations", [])
    assert all(each in spec["tolerations"] for each in asked)


def test_an_account_that_is_named_no_more_is_forgotten(plane: ControlPlane) -> None:
    manifests = given("cpu-only")
    fleet = manifests.only_fleet()
    at = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/accounts"
    found = []
    for account in ("reader", None):
        spec = fleet.spec.model_copy(update={"service_account_name": account})
        told = fleet.model_copy(update={"spec": spec})
        edge = only(render(told, manifests.models, TARGET), "Deployment")
        edge["metadata"] |= {"name": "accounts", "namespace": NAMESPACE}
        pod = plane.apply(at, edge)["spec"]["template"]["spec"]
        found.append((pod.get("serviceAccountName"), pod.get("serviceAccount")))
    assert found == [("reader", "reader"), (None, None)]


def within(written: Any, there: Any) -> bool:
    """Tell whether everything that was written is there, with whatever beside it."""
    if isinstance(written, dict) and isinstance(there, dict):
        return all(key in there and within(value, there[key]) for key, value in written.items())
    if isinstance(written, list) and isinstance(there, list) and len(written) == len(there):
        return all(within(mine, theirs) for mine, theirs in zip(written, there, strict=True))
    return bool(written == there)


@pytest.mark.parametrize("case", SERVED)
def test_pods_have_our_ports_env_labels_and_resources(
    plane: ControlPlane, client: httpx.Client, case: str
) -> None:
    service = service_of(case)
    name = service["metadata"]["name"]
    at = f"{RAY}/rayservices/{name}"
    plane.apply(at, service)
    cluster = cluster_of(client, name)
    asked = service["spec"]["rayClusterConfig"]
    groups = named([{"name": each["groupName"], **each} for each in asked["workerGroupSpecs"]])
    wanted = 1 + sum(group["minReplicas"] for group in groups.values())
    head, *workers = sorted(
        pods_of(client, cluster["metadata"]["name"], wanted),
        key=lambda pod: pod["metadata"]["labels"]["ray.io/node-type"] != "head",
    )
    assert_made_from(head, asked["headGroupSpec"]["template"])
    started = head["spec"]["containers"][0]["args"][0]
    assert "ray start --head" in started
    assert "--num-cpus=0" in started
    for worker in workers:
        group = groups[worker["metadata"]["labels"]["ray.io/group"]]
        assert_made_from(worker, group["template"])
    # KubeRay writes the whole object back once, with `scaleStrategy: {}` in each group. Groups are
    # a list that is applied as a whole, so the next apply takes that out; then both are content.
    stored = client.get(at).json()
    assert stored["metadata"]["finalizers"] == ["ray.io/rayservice-finalizer"]
    assert within(service["spec"], stored["spec"])
    settled = plane.apply(at, service)
    assert plane.apply(at, service)["metadata"]["generation"] == settled["metadata"]["generation"]
    assert settled["metadata"]["generation"] <= stored["metadata"]["generation"] + 1
