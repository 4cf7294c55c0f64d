"""Bringing a fleet up on this machine, changing it, and taking it down.

Each function reads as its steps. Whatever goes wrong while starting, what was started is stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from embedfleet.errors import EmbedfleetError, InvalidManifest
from embedfleet.local.edge import reload_edge, start_edge, write_edge
from embedfleet.local.node import MARK, node_environment, processes_of, start_node, stop_all
from embedfleet.local.ports import choose_ports, why_taken
from embedfleet.local.readiness import Progress, wait_ready
from embedfleet.local.serve_rest import ServeRest
from embedfleet.local.state import FleetState, load_state
from embedfleet.rendering.edge import EdgePorts, render_edge
from embedfleet.rendering.plan import Impact, Plan, plan
from embedfleet.rendering.serve import ServeConfig, ServePorts, render_serve
from embedfleet.resources import Fleet, Manifests

__all__ = ["Up", "apply", "bring_up", "plan_against", "take_down"]

DASHBOARD_SECONDS: Final = 120.0
_APPLIED: Final = "serve.json"


@dataclass(frozen=True, slots=True)
class Up:
    """How a fleet is brought up.

    Attributes:
        home: Folder for the states of fleets.
        environment: Environment of this process, which the fleet's processes inherit.
        host: Interface that clients call on.
        port: Where clients call; None for the manifest's port, 0 for any free one.
        num_cpus: Cores that Ray may hand out; None for all of them.
        dashboard: Address of a running Ray cluster's dashboard; empty starts one.
        token: That cluster's token.
    """

    home: Path
    environment: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int | None = None
    num_cpus: int | None = None
    dashboard: str = ""
    token: str = ""


def bring_up(manifests: Manifests, how: Up, report: Progress) -> FleetState:
    """Start a fleet and wait until every model answers.

    Raises:
        InvalidManifest: The fleet runs already, or the manifests cannot be served here.
        Unavailable: Something did not start; the message holds its own error.
    """
    fleet = manifests.only_fleet()
    _refuse_unserved(manifests.of_fleet(fleet))
    _refuse_second(fleet, how.home)
    state = _prepare(fleet, how)
    try:
        state = _meet_ray(state, how, report)
        _deploy(manifests.of_fleet(fleet), state)
        state = _start_edge(state, how)
        state.save(how.home)
        wait_ready(state, report)
    except BaseException:
        take_down(state, how.home)
        raise
    return state


def apply(manifests: Manifests, state: FleetState, report: Progress) -> Plan:
    """Change a running fleet to what the manifests say; requests go on meanwhile.

    Raises:
        InvalidManifest: The change is refused, and nothing was changed.
        Unavailable: A new version did not start; the old one serves on where there is one.
    """
    change = plan_against(manifests, state)
    if change.impact >= Impact.NEW_CLUSTER:
        raise InvalidManifest(f"Nothing was changed: this cannot be done while it runs.\n{change}")
    if _deploy(manifests.of_fleet(manifests.only_fleet()), state):
        reload_edge(state.edge_pid)
    wait_ready(state, report)
    return change


def plan_against(manifests: Manifests, state: FleetState) -> Plan:
    """Say what applying the manifests would do, and change nothing."""
    fleet = manifests.only_fleet()
    _refuse_unserved(manifests.of_fleet(fleet))
    if fleet.name != state.name:
        raise InvalidManifest(
            f"metadata.name of the Fleet is {fleet.name!r}, but {state.name!r} runs. Name the "
            "running fleet, or bring this one up.",
            field="metadata.name",
        )
    applied = Path(state.folder) / _APPLIED
    current = json.loads(applied.read_text()) if applied.exists() else None
    return plan(current, _serve_config(manifests.of_fleet(fleet), state))


def take_down(state: FleetState, home: Path) -> None:
    """Stop everything that belongs to the fleet and delete its files."""
    if not state.owns_ray:
        # A cluster that is gone has taken the applications with it.
        with contextlib.suppress(EmbedfleetError), ServeRest(state.dashboard, state.token) as serve:
            serve.delete()
    stop_all(state.fleet_id)
    state.remove(home)


def _refuse_unserved(manifests: Manifests) -> None:
    """A name that nobody answers to, or files that nobody fetches, must not look served."""
    unserved = [f"ModelRoute/{each.name}" for each in manifests.routes]
    unserved += [f"ModelCache/{each.name}" for each in manifests.caches]
    if unserved:
        raise InvalidManifest(
            f"{', '.join(unserved)}: this release checks kinds ModelRoute and ModelCache, but a "
            "local fleet does not serve them yet. Leave them out of the files given here.",
            field="kind",
        )


def _refuse_second(fleet: Fleet, home: Path) -> None:
    running = load_state(home, fleet.name)
    if running is None:
        return
    if processes_of(running.fleet_id):
        raise InvalidManifest(
            f"Fleet {fleet.name!r} runs already at {running.endpoint}. Change it with `embedfleet "
            f"apply`, stop it with `embedfleet down --fleet {fleet.name}`, or rename yours."
        )
    # Left behind by a machine that went down.
    running.remove(home)


def _prepare(fleet: Fleet, how: Up) -> FleetState:
    """Choose ports and a folder, and note down how to clean up before anything starts."""
    port = fleet.spec.grpc.port if how.port is None else how.port
    if port:
        _refuse_taken(how.host, port)
    ports = choose_ports(port or None)
    state = FleetState(
        name=fleet.name,
        fleet_id=secrets.token_hex(8),
        endpoint=f"{how.host}:{ports.edge}",
        dashboard=how.dashboard or f"http://127.0.0.1:{ports.dashboard}",
        token=how.token if how.dashboard else secrets.token_hex(32),
        ports=ports,
        # Unix sockets allow about a hundred bytes of path, and Ray adds sixty of its own.
        folder=tempfile.mkdtemp(prefix="ef-"),
        owns_ray=not how.dashboard,
    )
    state.save(how.home)
    return state


def _refuse_taken(host: str, port: int) -> None:
    if reason := why_taken(host, port):
        raise InvalidManifest(
            f"spec.grpc.port is {port}, which cannot be used on {host}: {reason}. Choose another, "
            "or give --port 0 for any free one.",
            field="spec.grpc.port",
        )


def _meet_ray(state: FleetState, how: Up, report: Progress) -> FleetState:
    """Start a Ray node, or meet the one that runs."""
    if state.owns_ray:
        report("starting Ray")
        folder = Path(state.folder)
        marks = {MARK: state.fleet_id, "RAY_AUTH_TOKEN": state.token}
        environment = node_environment({**how.environment, **marks}, state.ports, folder)
        start_node(environment, state.ports, folder, how.num_cpus or len(os.sched_getaffinity(0)))
    with ServeRest(state.dashboard, state.token) as serve:
        report(f"Ray {serve.wait_reachable(DASHBOARD_SECONDS)} runs")
        running = serve.get() if not state.owns_ray else {}
    grpc, http = running.get("grpc_options"), running.get("http_options")
    if running.get("applications") and grpc and http:
        # Serve keeps the ports that it was first started with.
        kept = replace(state.ports, serve_grpc=grpc["port"], serve_http=http["port"])
        return replace(state, ports=kept)
    return state


def _start_edge(state: FleetState, how: Up) -> FleetState:
    environment = {**how.environment, MARK: state.fleet_id}
    return replace(state, edge_pid=start_edge(Path(state.folder), environment))


def _serve_config(manifests: Manifests, state: FleetState) -> ServeConfig:
    ports = ServePorts(state.ports.serve_grpc, state.ports.serve_http, "127.0.0.1")
    return render_serve(manifests.fleets[0], manifests.models, ports)


def _deploy(manifests: Manifests, state: FleetState) -> bool:
    """Write the edge's files and hand the configuration to Serve.

    Returns:
        Whether the edge has to take up a change.
    """
    fleet, folder = manifests.fleets[0], Path(state.folder)
    config = _serve_config(manifests, state)
    host, _, port = state.endpoint.rpartition(":")
    behind = urlsplit(state.dashboard).hostname or "127.0.0.1"
    ports = EdgePorts(state.ports.serve_grpc, behind, int(port), host)
    edge = render_edge(fleet, manifests.models, ports)
    changed = write_edge(edge, fleet.spec.tls, folder)
    with ServeRest(state.dashboard, state.token) as serve:
        serve.put(config)
    (folder / _APPLIED).write_text(json.dumps(config))
    return changed
