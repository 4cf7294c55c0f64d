"""A whole cluster on this machine for a test: control plane, controllers, a node, and names.

Clients run in a namespace of its network, so that names of Services mean to them what they mean to
pods.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import control_plane
import go_tools
from control_plane import ADMIN, Address, ControlPlane
from e2e import memory, network
from e2e.network import Namespace, Network
from e2e.node import Orders
from go_tools import CACHE

__all__ = ["ROOT", "Cluster", "cluster", "missing"]

ROOT = Path(__file__).parents[2]
_CLIENTS = 20_000
_STOP_SECONDS = 30
_PREFIX = "ef-e2e-"
_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        clients: Where clients run.
        node: Process of which every container's are descendants.
    """

    plane: ControlPlane
    network: Network
    clients: Namespace
    folder: Path
    node: int

    def command(self, *command: str | Path) -> list[str]:
        """Say how a command is run where names of Services are known."""
        resolver = self.folder / "resolv.conf"
        resolver.write_text(f"nameserver {self.network.gateway}\noptions ndots:5\n")
        bound = f'mount --bind {resolver} /etc/resolv.conf; exec "$@"'
        return [
            "setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.clients.name}",
            "unshare", "--mount", "sh", "-euc", bound, "sh", *map(str, command),
        ]  # fmt: skip

    def logs(self) -> str:
        """Give the last lines of every container, for one who looks for a cause."""
        found = []
        for path in sorted((self.folder / "logs").glob("*.log")):
            last = "\n".join(path.read_text(errors="replace").splitlines()[-30:])
            found.append(f"--- {path.name}\n{last}")
        return "\n".join(found)


def missing() -> str:
    """Say why no cluster can be run here; empty where one can."""
    programs = ("helm", "kubectl", "kube-controller-manager", "kuberay-operator", "grpcurl")
    return control_plane.missing() or go_tools.missing(*programs) or network.missing()


@contextmanager
def cluster(images: Mapping[str, dict[str, Any]]) -> Iterator[Cluster]:
    """Start a cluster, and stop all of it.

    Args:
        images: By name, the command and the folder of images whose containers name none.
    """
    _sweep()
    with (
        network.bridge() as made,
        tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name,
        control_plane.control_plane(
            Path(name), address=Address(made.gateway, 443, made.services)
        ) as plane,
        control_plane.controllers(plane),
    ):  # fmt: skip
        folder = Path(name)
        clients = made.join(_CLIENTS)
        with _node(plane, made, images) as node:
            yield Cluster(plane, made, clients, folder, node)


@contextmanager
def _node(
    plane: ControlPlane, network: Network, images: Mapping[str, dict[str, Any]]
) -> Iterator[int]:
    orders = Orders(
        api=plane.url,
        token=ADMIN,
        certificate=str(plane.folder / "certs" / "apiserver.crt"),
        folder=str(plane.folder),
        memory=f"{_MEMORY}/{_PREFIX}{os.getpid()}",
        owner=network.owner,
        subnet=network.subnet,
        path=str(Path(sys.executable).parent),
        kept=tuple(sorted({sys.prefix, sys.base_prefix, str(ROOT), str(CACHE)} - {"/usr"})),
        images=dict(images),
    )
    path = plane.folder / "orders.json"
    path.write_text(json.dumps(dataclasses.asdict(orders)))
    with (plane.folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "e2e.node", path], cwd=ROOT / "tests", stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _sweep() -> None:
    """Remove what tests left behind that were killed."""
    memory.sweep()
    for parent in (tempfile.gettempdir(), _MEMORY):
        for path in Path(parent).glob(f"{_PREFIX}*"):
            owner = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path(f"/proc/{owner}").exists():
                shutil.rmtree(path, ignore_errors=True)
