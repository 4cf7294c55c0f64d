"""A Ray cluster that is not a fleet's own, with the flags that fleets need."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from embedfleet.config import Settings
from embedfleet.errors import Unavailable
from embedfleet.local.node import MARK, node_environment, processes_of, start_node, stop_all
from embedfleet.local.ports import LocalPorts, choose_ports
from embedfleet.serve_rest import ServeRest

__all__ = ["TOKEN", "RayCluster", "ray_cluster"]

TOKEN = "t" * 64
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class RayCluster:
    """A cluster that runs.

    Attributes:
        mark: By which its processes are found.
    """

    dashboard: str
    ports: LocalPorts
    mark: str

    def serve(self) -> ServeRest:
        """Connect to its dashboard."""
        return ServeRest(self.dashboard, TOKEN)

    def applications(self) -> dict[str, Any]:
        """Ask Serve for its applications; a busy dashboard drops connections."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self.serve() as serve:
                    found: dict[str, Any] = serve.get()["applications"]
                return found
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def processes(self) -> int:
        """Count what runs of it."""
        return len(processes_of(self.mark))


@contextmanager
def ray_cluster(num_cpus: int = 2) -> Iterator[RayCluster]:
    """Start one node, and stop it by its mark."""
    ports, folder, mark = choose_ports(), Path(tempfile.mkdtemp(prefix="ef-")), uuid4().hex
    marks = {MARK: mark, "RAY_AUTH_TOKEN": TOKEN}
    environment = node_environment({**Settings.load().environment, **marks}, ports, folder)
    start_node(environment, ports, folder, num_cpus)
    try:
        yield RayCluster(f"http://127.0.0.1:{ports.dashboard}", ports, mark)
    finally:
        stop_all(mark)
        shutil.rmtree(folder, ignore_errors=True)
