"""Bringing a fleet up on this machine, changing it, and taking it down.

Each function reads as its steps. Whatever goes wrong while starting, what was started is stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from embedfleet.errors import EmbedfleetError, InvalidManifest, Unavailable
from embedfleet.local.edge import reload_edge, start_edge, write_edge
from embedfleet.local.edge_plan import edge_changes
from embedfleet.local.logs import keep_logs
from embedfleet.local.node import MARK, node_environment, processes_of, start_node, stop_all
from embedfleet.local.ports import LocalPorts, choose_ports, why_taken
from embedfleet.local.readiness import Progress, applications, wait_ready
from embedfleet.local.state import FleetState, load_state
from embedfleet.rendering.edge import EdgePorts, render_edge
from embedfleet.rendering.plan import Impact, Plan, plan
from embedfleet.rendering.serve import (
    GRPC_SERVICER_FUNCTIONS,
    ServeConfig,
    ServePorts,
    render_serve,
)
from embedfleet.resources import Fleet, Manifests
from embedfleet.serve_rest import ServeRest

__all__ = ["Up", "apply", "bring_up", "durations", "plan_against", "take_down"]

DASHBOARD_SECONDS: Final = 120.0
_APPLIED: Final = "serve.json"
_DURATIONS: Final = "durations.json"
_APPLIED_FLEET: Final = "fleet.json"
_IN_USE: Final = ("RUNNING", "UNHEALTHY")
"""A version that never came up has no contract that anybody could rely on."""


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
        # Noted before it is done: what is taken down must include what was only half deployed.
        state = replace(state, deployed=True)
        state.save(how.home)
        _deploy(manifests.of_fleet(fleet), state)
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


def apply(
    manifests: Manifests,
    state: FleetState,
    report: Progress,
    *,
    allow_contract_change: bool = False,
) -> Plan:
    """Change a running fleet to what the manifests say; requests go on meanwhile.

    Args:
        manifests: The whole fleet; models that are not in them stop.
        state: The fleet that runs.
        report: Told what goes on.
        allow_contract_change: Whether a model in use may get another vector contract.

    Raises:
        InvalidManifest: The change is refused, and nothing was changed.
        Unavailable: A new version did not start; the old one serves on where there is one.
    """
    began = time.monotonic()
    change = plan_against(manifests, state, allow_contract_change=allow_contract_change)
    if change.refused:
        raise InvalidManifest(
            "Nothing was changed: the vector contract of a model in use would change. Give the new "
            "model another name, or use --allow-contract-change if nothing that the old one made "
            f"is kept.\n{change}"
        )
    if change.impact >= Impact.NEW_CLUSTER:
        raise InvalidManifest(f"Nothing was changed: this cannot be done while it runs.\n{change}")
    _deploy(manifests.of_fleet(manifests.only_fleet()), state)
    # Always, because an earlier change may have been written and then not got this far.
    if not reload_edge(state.edge_pid, state.fleet_id):
        raise Unavailable(
            f"The edge of fleet {state.name!r} (HAProxy, pid {state.edge_pid}) is gone, so nobody "
            f"can call {state.endpoint}. Start anew: embedfleet down --fleet {state.name}, then up."
        )
    wait_ready(state, report)
    took = durations(state) | {change.impact.label: round(time.monotonic() - began)}
    (Path(state.folder) / _DURATIONS).write_text(json.dumps(took))
    return change


def durations(state: FleetState) -> dict[str, int]:
    """Tell how many seconds the last change of each class took, by its label."""
    file = Path(state.folder) / _DURATIONS
    found: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    return found


def plan_against(
    manifests: Manifests, state: FleetState, *, allow_contract_change: bool = False
) -> Plan:
    """Say what applying the manifests would do, and change nothing."""
    fleet = manifests.only_fleet()
    _refuse_unserved(manifests.of_fleet(fleet))
    if fleet.name != state.name:
        raise InvalidManifest(
            f"metadata.name of the Fleet is {fleet.name!r}, but {state.name!r} runs. Name the "
            "running fleet, or bring this one up.",
            field="metadata.name",
        )
    folder = Path(state.folder)
    if not (folder / _APPLIED_FLEET).exists():
        raise Unavailable(
            f"Fleet {state.name!r} has not been deployed yet. Wait until `embedfleet up` is ready."
        )
    current = json.loads((folder / _APPLIED).read_text())
    applied = Fleet.model_validate_json((folder / _APPLIED_FLEET).read_text())
    desired = _serve_config(manifests.of_fleet(fleet), state)
    fixed = () if allow_contract_change else _in_use(state)
    edge = tuple(edge_changes(applied, fleet, int(state.endpoint.rpartition(":")[2])))
    models = plan(current, desired, immutable=fixed)
    touched = {change.resource for change in edge}
    unchanged = tuple(name for name in models.unchanged if name not in touched)
    return Plan((*edge, *models.changes), unchanged)


def _in_use(state: FleetState) -> list[str]:
    return [app.name for app in applications(state) if app.status in _IN_USE]


def take_down(state: FleetState, home: Path) -> None:
    """Stop everything that belongs to the fleet and delete its files."""
    if state.deployed and not state.owns_ray:
        # A cluster that is gone has taken the applications with it.
        with contextlib.suppress(EmbedfleetError), ServeRest(state.dashboard, state.token) as serve:
            serve.delete()
    stop_all(state.fleet_id)
    state.remove(home)


def _refuse_unserved(manifests: Manifests) -> None:
    """A name that nobody answers to, or files that nobody fetches, must not look served."""
    if manifests.only_fleet().spec.existing_cluster is not None:
        raise InvalidManifest(
            "spec.existingCluster is set: a laptop's fleet is told on the command line. Leave it "
            "out and give --ray with the dashboard's address.",
            field="spec.existingCluster",
        )
    unserved = [f"ModelRoute/{each.name}" for each in manifests.routes]
    unserved += [f"ModelCache/{each.name}" for each in manifests.caches]
    if unserved:
        raise InvalidManifest(
            f"{', '.join(unserved)}: this release checks kinds ModelRoute and ModelCache, but a "
            "local fleet does not serve them yet. Leave them out of the files given here.",
            field="kind",
        )
    for model in manifests.models:
        if model.spec.model.cache is not None:
            raise InvalidManifest(
                f"spec.model.cache of {model.kind}/{model.name} is {model.spec.model.cache}: a "
                "local fleet has no volumes. Run embedfleet fetch -f FILE --to FOLDER, and set "
                "spec.model.source to that folder instead.",
                field="spec.model.cache",
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


def _serve_config(manifests: Manifests, state: FleetState) -> ServeConfig:
    ports = ServePorts(state.ports.serve_grpc, state.ports.serve_http, "127.0.0.1")
    return render_serve(manifests.fleets[0], manifests.models, ports)


def _deploy(manifests: Manifests, state: FleetState) -> None:
    """Write the edge's files and hand the configuration to Serve."""
    fleet, folder = manifests.fleets[0], Path(state.folder)
    config = _serve_config(manifests, state)
    host, _, port = state.endpoint.rpartition(":")
    behind = urlsplit(state.dashboard).hostname or "127.0.0.1"
    ports = EdgePorts(state.ports.serve_grpc, behind, int(port), host)
    edge = render_edge(fleet, manifests.models, ports)
    write_edge(edge, fleet.spec.tls, folder)
    with ServeRest(state.dashboard, state.token) as serve:
        serve.put(config)
    (folder / _APPLIED).write_text(json.dumps(config))
    (folder / _APPLIED_FLEET).write_text(fleet.model_dump_json(by_alias=True))
