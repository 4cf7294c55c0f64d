"""A model in use keeps its vector contract on a laptop too, and changes of the edge are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from embedfleet.errors import InvalidManifest, Unavailable
from embedfleet.local.changing import apply, plan_against
from embedfleet.local.ports import LocalPorts
from embedfleet.local.state import FleetState
from embedfleet.rendering.plan import Impact
from embedfleet.rendering.serve import ServePorts, render_serve
from embedfleet.resources import Manifests, parse_manifests

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
EDGE_PORT = 9000
TLS = "{tls: {certificateFile: /c.pem, privateKeyFile: /k.pem}}"


def manifests(embedder: str = "", fleet: str = "{}", source: str = "/models/a") -> Manifests:
    return parse_manifests(
        f"{HEAD}kind: Fleet\nmetadata: {{name: f}}\nspec: {fleet}\n---\n"
        f"{HEAD}kind: Embedder\nmetadata: {{name: docs}}\n"
        f"spec: {{model: {{source: {source}}}{embedder}}}\n"
    )


Deployed = Callable[..., FleetState]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    """Give a function that leaves a fleet as `up` does, its application in a state of Serve's."""
    servers = []

    def start(status: str, *pids: int) -> FleetState:
        replicas = [{"state": "RUNNING", "pid": pid} for pid in pids]
        deployment = {"message": "", "target_num_replicas": len(pids), "replicas": replicas}
        deployments = {"main": deployment}
        answer = {"applications": {"emb-docs": {"status": status, "deployments": deployments}}}

        class Dashboard(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Dashboard)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        given = manifests()
        ports = LocalPorts(*[1] * len(fields(LocalPorts)))
        config = render_serve(given.only_fleet(), given.models, ServePorts(1, 1, "127.0.0.1"))
        (tmp_path / "serve.json").write_text(json.dumps(config))
        (tmp_path / "fleet.json").write_text(given.only_fleet().model_dump_json(by_alias=True))
        return FleetState(
            name="f",
            fleet_id="id",
            endpoint=f"127.0.0.1:{EDGE_PORT}",
            dashboard=f"http://127.0.0.1:{server.server_port}",
            token="",
            ports=ports,
            folder=str(tmp_path),
            owns_ray=True,
        )

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (manifests(source="/models/b"), "spec.model.source"),
        (manifests(", quantization: {weights: float32}"), "spec.quantization.weights"),
    ],
    ids=["another checkpoint", "weights of another type"],
)
@pytest.mark.parametrize(
    ("status", "impact"),
    [
        ("RUNNING", Impact.REFUSED),
        ("UNHEALTHY", Impact.REFUSED),
        # What never came up has made no vectors, and must be mendable.
        ("DEPLOY_FAILED", Impact.RESTART_APP),
    ],
)
def test_a_contract_in_use_is_kept(deployed, changed, field, status, impact):
    state = deployed(status)
    found = plan_against(changed, state)
    assert found.of("Embedder/docs") is impact
    assert field in str(found)
    allowed = plan_against(changed, state, allow_contract_change=True)
    assert allowed.of("Embedder/docs") is Impact.RESTART_APP


def test_a_refusal_names_both_ways_out(deployed):
    with pytest.raises(InvalidManifest) as refused:
        apply(manifests(source="/models/b"), deployed("RUNNING"), lambda line: None)
    for part in ("Nothing was changed", "another name", "--allow-contract-change", "/models/b"):
        assert part in refused.value.message


@pytest.mark.parametrize(
    ("changed", "impact", "said"),
    [
        (manifests(), Impact.NO_CHANGE, "NoChange: Embedder/docs, Fleet/f"),
        (manifests(fleet=TLS), Impact.RECONFIGURE, "spec.tls.certificateFile: unset -> /c.pem"),
        (
            manifests(fleet="{grpc: {port: 9100}}"), Impact.NEW_CLUSTER,
            "spec.grpc.port: 9000 -> 9100 (NewCluster)",
        ),
    ],
    ids=["nothing", "TLS", "port"],
)  # fmt: skip
def test_the_edge_is_part_of_the_plan(deployed, changed, impact, said):
    found = plan_against(changed, deployed("RUNNING"))
    assert found.of("Fleet/f") is impact
    assert said in str(found)
    assert ("Fleet/f" in found.unchanged) == (impact is Impact.NO_CHANGE)


def test_a_fleet_that_is_still_starting_has_nothing_to_compare_with(deployed, tmp_path):
    state = deployed("RUNNING")
    (tmp_path / "fleet.json").unlink()
    with pytest.raises(Unavailable, match="has not been deployed yet"):
        plan_against(manifests(), state)


def test_a_model_that_does_not_say_what_it_can_do_is_left_alone(deployed):
    with pytest.raises(Unavailable, match="Nothing was changed: Embedder/docs does not say"):
        plan_against(manifests(", dimension: 64"), deployed("RUNNING", 1234))
    # Without replicas there is nobody to ask and nobody to stop.
    found = plan_against(manifests(", dimension: 64"), deployed("RUNNING"))
    assert found.of("Embedder/docs") is Impact.RECONFIGURE
