"""From helm install to a vector, and through changes under traffic, with nothing faked between."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts import helm
from control_plane import wait
from e2e.chain import DOCS, ENDPOINT, NAMESPACE, alone, chain, ready, scaled, settled, traffic
from e2e.cluster import Cluster, missing
from e2e.traffic import Expected, Tally
from go_tools import tool
from operator_process import Kubectl, condition

REASON = missing()
pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(1200),
]

EMBEDFLEET = Path(sys.executable).with_name("embedfleet")
LOST: dict[str, Any] = {
    "kind": "Embedder",
    "metadata": {"name": "lost"},
    "spec": {"model": {"source": "/nowhere/at-all"}, "placement": {"cpus": 0.1}},
}


@pytest.fixture(scope="module")
def world() -> Iterator[Cluster]:
    with chain() as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(world: Cluster) -> Kubectl:
    return Kubectl(world.plane, NAMESPACE)


@pytest.fixture(scope="module")
def expected() -> Expected:
    return alone()


def all_answered(tally: Tally) -> None:
    assert tally.failed == []
    assert tally.wrong == 0
    assert tally.sent == tally.answered > 0


def changed(**spec: Any) -> dict[str, Any]:
    return {**DOCS, "spec": {**DOCS["spec"], **spec}}


def test_everything_becomes_ready(world: Cluster, kubectl: Kubectl) -> None:
    ready(kubectl, world, "fleet/search", "embedder/docs", "reranker/relevance")
    assert kubectl.get("fleet/search")["status"]["endpoint"] == ENDPOINT


def test_answers_are_those_of_the_engines_alone(
    world: Cluster, kubectl: Kubectl, expected: Expected
) -> None:
    with traffic(world, expected) as tally:
        time.sleep(3)
    all_answered(tally)
    said = run(world, str(EMBEDFLEET), "models", "--endpoint", ENDPOINT, "--output=jsonl")
    for what in ("embedder/docs", "reranker/relevance"):
        wait(lambda what=what: "contractHash" in kubectl.get(what)["status"], "the contract")
        assert kubectl.get(what)["status"]["contractHash"] in said


def test_grpcurl_lists_the_services(world: Cluster) -> None:
    said = run(world, str(tool("grpcurl")), "-plaintext", ENDPOINT, "list").split()
    assert {f"embedfleet.v1.{each}Service" for each in ("Embedding", "Reranking", "Model")} <= set(
        said
    )


def run(world: Cluster, *command: str) -> str:
    """Run a program where clients run."""
    done = subprocess.run(
        world.command(*command), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_charts_own_test_passes(world: Cluster) -> None:
    done = helm("test", "embedfleet", "--namespace=system", kubeconfig=world.plane.kubeconfig())
    assert done.returncode == 0, f"{done.stderr}{done.stdout}{world.logs()}"
    assert "Succeeded" in done.stdout


def test_changes_and_a_broken_model_cost_no_call(
    world: Cluster, kubectl: Kubectl, expected: Expected
) -> None:
    def failed() -> bool:
        return condition(kubectl.get("embedder/lost"), "Ready")[:2] == ("False", "Failed")

    with traffic(world, expected) as tally:
        kubectl.apply(LOST)
        kubectl.apply(changed(instruction={"default": "Given a question, find its answer"}))
        wait(lambda: settled(kubectl, "embedder/docs"), "the new instruction")
        scaled(kubectl, 2)
        scaled(kubectl, 1)
        wait(failed, "the failure")
        assert "/nowhere/at-all" in kubectl.get("embedder/lost")["status"]["lastFailure"]["message"]
        for each in ("embedder/docs", "reranker/relevance"):
            assert condition(kubectl.get(each), "Ready")[0] == "True"
        kubectl("delete", "embedder/lost", "--timeout=60s")
    all_answered(tally)


def test_a_call_at_zero_replicas_is_held_and_answered(
    world: Cluster, kubectl: Kubectl, expected: Expected
) -> None:
    scaled(kubectl, 0)
    with traffic(world, expected, 240) as tally:
        wait(lambda: kubectl.get("embedder/docs")["status"].get("readyReplicas", 0) > 0, "a start")
    all_answered(tally)


def test_uninstalled_nothing_is_left_but_what_is_kept(world: Cluster, kubectl: Kubectl) -> None:
    kubectl("delete", "fleet/search", "--timeout=120s")
    wait(lambda: not kubectl("get", "pods", "--output=name"), "the pods to end")
    kubectl("delete", "embedder/docs", "reranker/relevance", "--timeout=60s")
    for release in ("embedfleet", "kinds"):
        done = helm("uninstall", release, "--namespace=system", kubeconfig=world.plane.kubeconfig())
        assert done.returncode == 0, done.stderr
    kinds = "deployments,services,configmaps,secrets,networkpolicies,poddisruptionbudgets"

    def left() -> set[str]:
        found = kubectl("get", kinds, "--output=name").split()
        found += Kubectl(world.plane, "system")("get", kinds, "--output=name").split()
        return {each for each in found if each != "configmap/kube-root-ca.crt"}

    wait(lambda: not left(), "everything to be gone")
    kept = kubectl("get", "crds", "--output=name")
    assert "fleets.embedfleet.io" in kept
