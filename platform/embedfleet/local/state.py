"""What is known of the fleets started on this machine: one folder and one file each.

The file is written before anything starts, so that `down` can clean up after a start that failed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from embedfleet.local.ports import LocalPorts

__all__ = ["FleetState", "list_states", "load_state"]

_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class FleetState:
    """One fleet started here.

    Attributes:
        name: The Fleet resource's name.
        fleet_id: Mark in the environment of every process that belongs to it.
        endpoint: `host:port` for clients.
        dashboard: Address of Ray's dashboard.
        token: Ray's authentication token; the file is readable by its owner only.
        ports: Every port chosen for it.
        edge_pid: HAProxy's master process.
        folder: Short-lived files: sockets, logs, rendered configuration.
        owns_ray: Whether the Ray cluster was started with the fleet, and stops with it.
        deployed: Whether Serve was given the fleet's configuration.
    """

    name: str
    fleet_id: str
    endpoint: str
    dashboard: str
    token: str
    ports: LocalPorts
    folder: str
    owns_ray: bool
    deployed: bool = False
    edge_pid: int = 0

    def save(self, home: Path) -> None:
        """Write the state file, readable by the owner only."""
        path = home / self.name / _FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self), indent=2))
        fresh.replace(path)

    def remove(self, home: Path) -> None:
        """Delete everything that was written for the fleet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(home / self.name, ignore_errors=True)


def load_state(home: Path, name: str) -> FleetState | None:
    """Read one fleet's state, None if there is none."""
    path = home / name / _FILE
    if not path.is_file():
        return None
    values = json.loads(path.read_text())
    return FleetState(**{**values, "ports": LocalPorts(**values["ports"])})


def list_states(home: Path) -> list[FleetState]:
    """Read the states of every fleet started on this machine."""
    states = (load_state(home, path.parent.name) for path in sorted(home.glob(f"*/{_FILE}")))
    return [state for state in states if state is not None]
