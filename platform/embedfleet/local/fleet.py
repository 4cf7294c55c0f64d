"""Bringing a fleet up on this machine, and taking it down.

Each function reads as its steps. Whatever goes wrong while starting, what was started is stopped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import EmbedfleetError, InvalidManifest, Unavailable
from embedfleet.local.deployment import deploy, refuse_unserved
from embedfleet.local.edge import start_edge
from embedfleet.local.logs import keep_logs
from embedfleet.local.node import MARK, node_environment, processes_of, start_node, stop_all
from embedfleet.local.ports import LocalPorts, choose_ports, why_taken
from embedfleet.local.readiness import Progress, wait_ready
from embedfleet.local.state import FleetState, load_state
from embedfleet.rendering.serve import GRPC_SERVICER_FUNCTIONS
from embedfleet.resources import Fleet, Manifests
from embedfleet.serve_rest import ServeRest

__all__ = ["Up", "bring_up", "take_down"]

DASHBOARD_SECONDS: Final = 120.0


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
    refuse_unserved(manifests.of_fleet(fleet))
    _refuse_second(fleet, how.home)
    state = _prepare(fleet, how)
    try:
        state = _meet_ray(state, how, report)
        # Noted before it is done: what is taken down must include what was only half deployed.
        state = replace(state, deployed=True)
        state.save(how.home)
        deploy(manifests.of_fleet(fleet), state)
        state = _start_edge(state, how.environment)
        state.save(how.home)
        wait_ready(state, report)
    except BaseException as failure:
        # A refusal says it all; only what did not start needs looking into.
        if isinstance(failure, Unavailable):
            report(f"failed; logs are kept in {keep_logs(Path(state.folder), fleet.name)}")
        take_down(state, how.home)
        raise
    return state


def take_down(state: FleetState, home: Path) -> None:
    """Stop everything that belongs to the fleet and delete its files."""
    if state.deployed and not state.owns_ray:
        # A cluster that is gone has taken the applications with it.
        with contextlib.suppress(EmbedfleetError), ServeRest(state.dashboard, state.token) as serve:
            serve.delete()
    stop_all(state.fleet_id)
    state.remove(home)


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
    with ServeRest(state.dashboard, state.token) as serve:
        if not state.owns_ray:
            report(f"Ray {serve.wait_reachable(DASHBOARD_SECONDS)} runs")
            return replace(state, ports=_ports_of(serve.get(), state))
        report("starting Ray")
        folder = Path(state.folder)
        marks = {MARK: state.fleet_id, "RAY_AUTH_TOKEN": state.token}
        environment = node_environment({**how.environment, **marks}, state.ports, folder)
        num_cpus = how.num_cpus or len(os.sched_getaffinity(0))
        node = start_node(environment, state.ports, folder, num_cpus)
        version = serve.wait_reachable(DASHBOARD_SECONDS, lambda: node.poll() is None)
        report(f"Ray {version} runs")
    return state


def _ports_of(running: Mapping[str, Any], state: FleetState) -> LocalPorts:
    """Give the ports that a running Serve was first started with: it keeps them for good.

    Raises:
        InvalidManifest: The cluster serves others, or cannot learn our services any more.
    """
    others = ", ".join(sorted(running.get("applications", {})))
    if others:
        raise InvalidManifest(
            f"The Ray cluster at {state.dashboard} serves {others}; a fleet's configuration is the "
            "whole truth and would delete them. Use a cluster of its own, or leave out --ray."
        )
    grpc, http = running.get("grpc_options"), running.get("http_options")
    if not grpc or not http:
        return state.ports
    missing = set(GRPC_SERVICER_FUNCTIONS) - set(grpc.get("grpc_servicer_functions") or ())
    if missing:
        raise InvalidManifest(
            f"Serve runs on the Ray cluster at {state.dashboard} without {', '.join(missing)}, and "
            "cannot learn services after its start. Shut Serve down there (`serve shutdown`) first."
        )
    return replace(state.ports, serve_grpc=grpc["port"], serve_http=http["port"])


def _start_edge(state: FleetState, environment: Mapping[str, str]) -> FleetState:
    marked = {**environment, MARK: state.fleet_id}
    pid = start_edge(Path(state.folder), state.endpoint, marked)
    return replace(state, edge_pid=pid)
