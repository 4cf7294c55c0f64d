"""A real fleet for a measure: Ray, Serve and the edge on free ports, stopped at the block's end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from support.machine import CORES
from support.report import note

from embedfleet.config import Settings
from embedfleet.local.node import processes_of
from embedfleet.local.ports import REPLICA_BLOCK
from embedfleet.local.readiness import applications
from embedfleet.local.state import FleetState
from embedfleet.local.temporary import temporary_fleet
from embedfleet.messages import Role
from embedfleet.resources import parse_manifests


def manifest(role: Role, source: str | Path, *, backend: str = "torch", more: str = "") -> str:
    """Write a fleet of one model, `m`, that has all cores; `more` is extra lines of its spec."""
    return f"""
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {{name: bench}}
---
apiVersion: embedfleet.io/v1alpha1
kind: {role.value.capitalize()}
metadata: {{name: m}}
spec:
  model: {{source: {source}}}
  backend: {backend}
  placement: {{cpus: {CORES}}}
{more}"""


@dataclass(frozen=True)
class Running:
    """A fleet that answers."""

    state: FleetState

    @property
    def pids(self) -> list[int]:
        """Every process of the fleet."""
        return [process.pid for process in processes_of(self.state.fleet_id)]

    def replica(self, name: str = "m") -> psutil.Process:
        """Find the process of a model's only replica."""
        found = {app.name: app for app in applications(self.state)}
        (pid,) = found[self.application(name)].pids
        return psutil.Process(pid)

    def application(self, name: str = "m") -> str:
        """Return what Serve calls a model."""
        names = [app.name for app in applications(self.state)]
        return next(each for each in names if each.partition("-")[2] == name)

    def replica_endpoint(self, name: str = "m") -> str:
        """Find where a replica itself listens."""
        first = self.state.ports.replica_grpc_first
        sockets = self.replica(name).net_connections()
        ports: Sequence[int] = [
            each.laddr.port
            for each in sockets
            if each.status == psutil.CONN_LISTEN
            and first <= each.laddr.port < first + REPLICA_BLOCK
        ]
        return f"127.0.0.1:{ports[0]}"


def _stop(*_: object) -> None:
    """Whoever ends a measure early must not leave its fleet behind, nor asking twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("stopped")


@contextmanager
def running(text: str) -> Iterator[Running]:
    """Bring up the fleet of a manifest, and take it down whatever happens."""
    signal.signal(signal.SIGTERM, _stop)
    environment = Settings.load().environment
    with temporary_fleet(parse_manifests(text), environment, note) as state:
        yield Running(state)
