"""Changing a fleet that runs on this machine: what would happen, and making it happen."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from embedfleet.client.direct import describe_at
from embedfleet.errors import EmbedfleetError, InvalidManifest, Unavailable
from embedfleet.local.deployment import (
    deploy,
    last_deployed,
    refuse_unserved,
    serve_config,
    serve_host,
)
from embedfleet.local.edge import reload_edge
from embedfleet.local.edge_plan import edge_changes
from embedfleet.local.readiness import Progress, applications, wait_ready
from embedfleet.local.state import FleetState
from embedfleet.rendering.fitting import check_dimensions, to_be_fitted
from embedfleet.rendering.plan import Impact, Plan, plan
from embedfleet.rendering.serve import ServeConfig
from embedfleet.resources import Manifests

__all__ = ["apply", "durations", "plan_against"]

_DURATIONS: Final = "durations.json"
_ASKING_SECONDS: Final = 10.0
_IN_USE: Final = ("RUNNING", "UNHEALTHY")
"""A version that never came up has no contract that anybody could rely on."""


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
    deploy(manifests.of_fleet(manifests.only_fleet()), state)
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
    """Say what applying the manifests would do, and change nothing.

    Raises:
        InvalidManifest: It cannot be applied, to anything or to the models that run.
        Unavailable: A model that runs does not say whether it can be.
    """
    fleet = manifests.only_fleet()
    refuse_unserved(manifests.of_fleet(fleet))
    if fleet.name != state.name:
        raise InvalidManifest(
            f"metadata.name of the Fleet is {fleet.name!r}, but {state.name!r} runs. Name the "
            "running fleet, or bring this one up.",
            field="metadata.name",
        )
    applied = last_deployed(state)
    desired = serve_config(manifests.of_fleet(fleet), state)
    running = applications(state)
    _refuse_unfit(applied.config, desired, {app.name for app in running if app.pids}, state)
    in_use = [app.name for app in running if app.status in _IN_USE]
    edge = tuple(edge_changes(applied.fleet, fleet, int(state.endpoint.rpartition(":")[2])))
    models = plan(applied.config, desired, immutable=() if allow_contract_change else in_use)
    touched = {change.resource for change in edge}
    unchanged = tuple(name for name in models.unchanged if name not in touched)
    return Plan((*edge, *models.changes), unchanged)


def _refuse_unfit(
    before: ServeConfig, after: ServeConfig, running: Collection[str], state: FleetState
) -> None:
    """Ask running embedders whether they can do what would be their default."""
    known = {each["name"]: each for each in before["applications"] if each["name"] in running}
    address = f"{serve_host(state)}:{state.ports.serve_grpc}"
    for application in after["applications"]:
        name = application["name"]
        settings = to_be_fitted(known[name], application) if name in known else None
        if settings is None:
            continue
        model = application["args"]["name"]
        try:
            described = asyncio.run(describe_at(address, name, model, _ASKING_SECONDS))
            check_dimensions(settings, described.native_dimension)
        except InvalidManifest as unfit:
            raise InvalidManifest(
                f"Nothing was changed: Embedder/{model}: {unfit.message}", field=unfit.field
            ) from unfit
        except EmbedfleetError as silent:
            raise Unavailable(
                f"Nothing was changed: Embedder/{model} does not say whether it can do the new "
                f"default: {silent.message.rstrip('.')}. Try again when it answers."
            ) from silent
