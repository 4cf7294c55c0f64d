"""Kills one thing after the other under traffic and prints what it cost, as a Markdown table.

Usage: python tests/e2e/chaos.py [WORD ...]    only faults whose names hold a word.

Calls come from the client without a pause; what it lost was lost after its own retries.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from e2e.chain import NAMESPACE, RELEVANCE, alone, chain, ready, scaled, settled, traffic
from e2e.cluster import Cluster, missing
from e2e.traffic import Expected, Tally
from operator_process import Kubectl, condition

BEFORE_SECONDS = 4.0
STEADY_SECONDS = 12.0
LIMIT_SECONDS = 600.0
DOWN_SECONDS = 15.0


@dataclass(frozen=True)
class World:
    """A fleet under traffic, and where it can be hurt."""

    cluster: Cluster
    kubectl: Kubectl

    def kill(self, *words: str, without: str = "unshare") -> None:
        """Kill the first process of any container whose command line holds these words."""
        for process in psutil.Process(self.cluster.node).children(recursive=True):
            try:
                line = " ".join([process.name(), *process.cmdline()])
                if all(each in line for each in words) and without not in line:
                    process.kill()
                    return
            except psutil.NoSuchProcess:
                continue
        raise LookupError(f"no process runs {words}")

    def delete(self, selector: str) -> None:
        """Delete the first pod that a selector finds, without any grace."""
        names = self.kubectl("get", "pods", f"--selector={selector}", "--output=name").split()
        self.kubectl("delete", names[0], "--grace-period=0", "--force", "--wait=false")

    def stop_api(self) -> None:
        """Stop the API server for a while."""
        self.cluster.plane.stop()
        time.sleep(DOWN_SECONDS)
        self.cluster.plane.start()

    def renew(self) -> None:
        """Change the head's size, for which KubeRay builds a second cluster and then switches."""
        patch = json.dumps({"spec": {"head": {"memoryGib": 3}}})
        self.kubectl("patch", "fleet/search", "--type=merge", f"--patch={patch}")

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
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


FAULTS: Mapping[str, Callable[[World], None]] = {
    "one of two replicas": lambda world: world.kill("ServeReplica:emb-docs"),
    "HAProxy of an edge pod": lambda world: world.kill("haproxy", "/etc/embedfleet/edge"),
    "HAProxy of a Ray node": lambda world: world.kill("haproxy", "haproxy-serve"),
    "one of two operators": lambda world: world.kill("embedfleet_operator"),
    "KubeRay's operator": lambda world: world.kill("kuberay-operator"),
    "the API server, for 15 s": World.stop_api,
    "Serve's controller": lambda world: world.kill("ServeController"),
    "a worker's raylet": lambda world: world.kill("raylet/raylet", without="--head"),
    "a worker pod": lambda world: world.delete("ray.io/node-type=worker"),
    "a cluster, by a new one": World.renew,
    "the head pod": lambda world: world.delete("ray.io/node-type=head"),
}


@dataclass(frozen=True)
class Row:
    """What a fault cost.

    Attributes:
        whole_seconds: Until everything ran again as before; None if it never did.
    """

    name: str
    tally: Tally
    whole_seconds: float | None

    def __str__(self) -> str:
        """Write a row of the table."""
        tally, again = self.tally, self.whole_seconds
        cells = (
            self.name, tally.sent, tally.answered, len(tally.failed), tally.wrong,
            f"{tally.longest_seconds:.1f} s", "never" if again is None else f"{again:.0f} s",
        )  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "| killed | sent | answered | lost | wrong | longest call | whole again after |\n"
    "|---|---|---|---|---|---|---|"
)


def suffer(world: World, expected: Expected, name: str) -> Row:
    """Do one thing to the world under traffic, and wait until it is whole."""
    again: float | None = None
    with traffic(world.cluster, expected) as tally:
        time.sleep(BEFORE_SECONDS)
        began = time.monotonic()
        FAULTS[name](world)
        since: float | None = None
        while time.monotonic() - began < LIMIT_SECONDS:
            if not world.whole():
                since = None
            else:
                since = since or time.monotonic()
                if time.monotonic() - since >= STEADY_SECONDS:
                    again = since - began
                    break
            time.sleep(0.5)
    return Row(name, tally, again)


def rows(names: list[str]) -> Iterator[Row]:
    """Bring a fleet up and do every fault to it."""
    expected = alone()
    with chain() as cluster:
        kubectl = Kubectl(cluster.plane, NAMESPACE)
        two = {"scaling": {"minReplicas": 2}}
        kubectl.apply({**RELEVANCE, "spec": {**RELEVANCE["spec"], **two}})
        ready(kubectl, cluster, "fleet/search", "embedder/docs", "reranker/relevance")
        scaled(kubectl, 2)
        world = World(cluster, kubectl)
        for name in names:
            row = suffer(world, expected, name)
            yield row
            for message in dict.fromkeys(row.tally.failed):
                sys.stderr.write(f"{name}: {row.tally.failed.count(message)} x {message}\n")
            if row.whole_seconds is None:
                sys.stderr.write(f"{kubectl('get', 'pods,embedfleet')}{cluster.logs()}\n")
                return


def main(words: list[str]) -> int:
    if reason := missing():
        sys.stdout.write(f"chaos: not here: {reason}\n")
        return 1
    sys.stdout.write(f"{HEAD}\n")
    found = []
    for row in rows([name for name in FAULTS if not words or any(w in name for w in words)]):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
        found.append(row)
    lost, wrong = (
        sum(each)
        for each in zip(*((len(r.tally.failed), r.tally.wrong) for r in found), strict=True)
    )
    sys.stdout.write(f"chaos: {len(found)} faults, lost {lost}, wrong {wrong}\n")
    return int(bool(lost or wrong) or any(each.whole_seconds is None for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
