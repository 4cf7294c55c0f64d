"""A real fleet for tests: Ray, Serve, HAProxy and the edge, on free ports, stopped by its mark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from fleet_calls import Caller, pairs, texts

from embedfleet.config import Settings
from embedfleet.local.readiness import applications
from embedfleet.local.state import FleetState
from embedfleet.local.temporary import temporary_fleet
from embedfleet.resources import load_manifests

MANIFESTS = Path(__file__).with_name("fleet.yaml")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that begin with the shared fleet last, after those that need it somewhere.

    Idle, it takes a quarter of a core.
    """
    needs: dict[Path, list[bool]] = {}
    for item in items:
        needs.setdefault(item.path, []).append("fleet" in getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: (any(needs[item.path]), needs[item.path][0]))


@pytest.fixture(scope="session")
def fleet() -> Iterator[FleetState]:
    """One embedder, one reranker, for every test that leaves them as they are."""
    manifests, environment = load_manifests([MANIFESTS]), Settings.load().environment
    with temporary_fleet(manifests, environment, lambda line: None, num_cpus=2) as state:
        yield state


@pytest.fixture
def caller(fleet: FleetState) -> Iterator[Caller]:
    with Caller(fleet.endpoint) as connected:
        yield connected


def replicas(state: FleetState) -> dict[str, tuple[int, ...]]:
    """Processes of each application's running replicas."""
    return {application.name: application.pids for application in applications(state)}


@dataclass(frozen=True)
class Witness:
    """What the replicas were like before something was done to them."""

    state: FleetState
    processes: dict[str, tuple[int, ...]]
    bytes_used: dict[int, int]

    @classmethod
    def of(cls, state: FleetState) -> Witness:
        processes = replicas(state)
        pids = [pid for found in processes.values() for pid in found]
        return cls(state, processes, {pid: psutil.Process(pid).memory_info().rss for pid in pids})

    def growth(self) -> dict[str, int]:
        """Bytes by which each application's replicas have grown since.

        Raises:
            AssertionError: A replica is gone or has been replaced.
        """
        now = Witness.of(self.state)
        assert now.processes == self.processes
        return {
            name: sum(now.bytes_used[pid] - self.bytes_used[pid] for pid in pids)
            for name, pids in self.processes.items()
        }


@pytest.fixture(scope="module")
def witness(fleet: FleetState) -> Witness:
    """Taken after enough good calls that allocators have what they keep."""
    with Caller(fleet.endpoint) as connected:
        for _ in range(5):
            connected.call("EmbeddingService/Embed", texts("docs", *["a word"] * 2048))
            connected.call("RerankingService/Rerank", pairs("relevance", "q", *["a word"] * 500))
    return Witness.of(fleet)
