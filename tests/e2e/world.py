"""A fleet that is under traffic, its parts, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
from e2e.chain import NAMESPACE, settled
from e2e.cluster import Cluster
from e2e.network import Namespace
from e2e.traffic import Expected
from operator_process import Kubectl, condition

__all__ = ["HEAD", "WORKER", "World"]

HEAD = "ray.io/node-type=head"
WORKER = "ray.io/node-type=worker"


@dataclass(frozen=True)
class World:
    """A fleet under traffic, and where it can be hurt."""

    cluster: Cluster
    kubectl: Kubectl
    expected: Expected

    def processes(self, *words: str, without: str = "unshare") -> Iterator[psutil.Process]:
        """Give the processes of all containers whose command lines hold these words."""
        for process in psutil.Process(self.cluster.node).children(recursive=True):
            try:
                line = " ".join([process.name(), *process.cmdline()])
            except psutil.NoSuchProcess:
                continue
            if all(each in line for each in words) and without not in line:
                yield process

    def process(self, *words: str, without: str = "unshare") -> psutil.Process:
        """Give the first of them."""
        for process in self.processes(*words, without=without):
            return process
        raise LookupError(f"no process runs {words}")

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Read the pods that a selector finds and that are to stay."""
        listed = self.kubectl("get", "pods", f"--selector={selector}", "--output=json")
        found = json.loads(listed)["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def pod(self, selector: str) -> dict[str, Any]:
        """Read the first of them."""
        return self.pods(selector)[0]

    def link(self, selector: str) -> Namespace:
        """Find the link of the first pod that a selector finds."""
        return self.cluster.network.at(self.pod(selector)["status"]["podIP"])

    def delete(self, selector: str) -> None:
        """Delete the first pod that a selector finds, without any grace."""
        name = self.pod(selector)["metadata"]["name"]
        self.kubectl("delete", f"pod/{name}", "--grace-period=0", "--force", "--wait=false")

    def whole(self) -> bool:
        """Whether everything runs as it is wanted to."""
        for namespace in (NAMESPACE, "system", "kuberay"):
            pods = Kubectl(self.cluster.plane, namespace).get("pods")["items"]
            if not all(_is_ready(each) for each in pods):
                return False
        for each in ("embedder/docs", "reranker/relevance"):
            status = self.kubectl.get(each)["status"]
            if status.get("readyReplicas") != 2 or not settled(self.kubectl, each):
                return False
        return condition(self.kubectl.get("fleet/search"), "Ready")[0] == "True"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    if pod["status"].get("phase") == "Succeeded":
        return True
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
