"""Handing a fleet to Serve and the edge, and keeping what was handed over for the next plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from embedfleet.errors import InvalidManifest, Unavailable
from embedfleet.local.edge import write_edge
from embedfleet.local.state import FleetState
from embedfleet.rendering.edge import EdgePorts, render_edge
from embedfleet.rendering.serve import ServeConfig, ServePorts, render_serve
from embedfleet.resources import Fleet, Manifests
from embedfleet.serve_rest import ServeRest

__all__ = [
    "Deployed",
    "deploy",
    "last_deployed",
    "refuse_unserved",
    "serve_config",
    "serve_host",
]

_APPLIED: Final = "serve.json"
_APPLIED_FLEET: Final = "fleet.json"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was last handed over."""

    fleet: Fleet
    config: ServeConfig


def last_deployed(state: FleetState) -> Deployed:
    """Read what was last handed over.

    Raises:
        Unavailable: Nothing was yet.
    """
    folder = Path(state.folder)
    if not (folder / _APPLIED_FLEET).exists():
        raise Unavailable(
            f"Fleet {state.name!r} has not been deployed yet. Wait until `embedfleet up` is ready."
        )
    fleet = Fleet.model_validate_json((folder / _APPLIED_FLEET).read_text())
    return Deployed(fleet, json.loads((folder / _APPLIED).read_text()))


def refuse_unserved(manifests: Manifests) -> None:
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


def serve_config(manifests: Manifests, state: FleetState) -> ServeConfig:
    """Render what Serve is to run, on the ports of this fleet."""
    ports = ServePorts(state.ports.serve_grpc, state.ports.serve_http, "127.0.0.1")
    return render_serve(manifests.fleets[0], manifests.models, ports)


def serve_host(state: FleetState) -> str:
    """Tell on which machine Serve's own proxies answer, past the edge."""
    return urlsplit(state.dashboard).hostname or "127.0.0.1"


def deploy(manifests: Manifests, state: FleetState) -> None:
    """Write the edge's files and hand the configuration to Serve."""
    fleet, folder = manifests.fleets[0], Path(state.folder)
    config = serve_config(manifests, state)
    host, _, port = state.endpoint.rpartition(":")
    ports = EdgePorts(state.ports.serve_grpc, serve_host(state), int(port), host)
    edge = render_edge(fleet, manifests.models, ports)
    write_edge(edge, fleet.spec.tls, folder)
    with ServeRest(state.dashboard, state.token) as serve:
        serve.put(config)
    (folder / _APPLIED).write_text(json.dumps(config))
    (folder / _APPLIED_FLEET).write_text(fleet.model_dump_json(by_alias=True))
