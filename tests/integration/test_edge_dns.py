"""The edge where Serve's proxies come and go behind a name, as they do in a cluster."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from edge_harness import (
    EMBED,
    ONE_EMBEDDER,
    OPTIONS,
    Seen,
    edge_config,
    free_port,
    run_haproxy,
    run_server,
    wait_until,
)

from embedfleet.rendering.edge import EdgePorts
from embedfleet.v1 import embedding_pb2

NAME = "fleet-serve-svc.search.svc.cluster.local"
A, NXDOMAIN = 1, 3


@dataclass
class Names:
    """A name server that knows one name: its addresses can change while it runs."""

    socket: socket.socket
    addresses: tuple[str, ...] = ()
    asked: set[str] = field(default_factory=set)
    stops: bool = False

    def serve(self) -> None:
        while not self.stops:
            query, client = self.socket.recvfrom(4096)
            if query:
                self.socket.sendto(self.answer(query), client)

    def answer(self, query: bytes) -> bytes:
        """Answer one question (RFC 1035, 4.1)."""
        end = query.index(b"\0", 12) + 5
        question, (kind,) = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])
        self.asked.add(".".join(labels(question)))
        found = self.addresses if kind == A else ()
        flags = 0x8180 if self.addresses else 0x8180 | NXDOMAIN
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        records = (
            struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(address)
            for address in found
        )
        return head + question + b"".join(records)


def labels(question: bytes) -> Iterator[str]:
    start = 0
    while question[start]:
        yield question[start + 1 : start + 1 + question[start]].decode()
        start += 1 + question[start]


@contextmanager
def run_names() -> Iterator[Names]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        names = Names(server)
        thread = threading.Thread(target=names.serve)
        thread.start()
        try:
            yield names
        finally:
            names.stops = True
            server.sendto(b"", server.getsockname())
            thread.join(timeout=5)


def call(port: int) -> str:
    """Call on a connection of its own and give the answer, or the status it failed with."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        embed = channel.unary_unary(EMBED)
        try:
            request = embedding_pb2.EmbedRequest(model="docs").SerializeToString()
            return str(embed(request, timeout=10).decode())
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


def answered(port: int) -> Callable[[], bool]:
    return lambda: call(port).startswith("emb-docs")


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[tuple[Names, EdgePorts]]:
    ports = EdgePorts(
        serve_grpc=free_port(),
        serve_host=NAME,
        listen=free_port(),
        listen_host="127.0.0.1",
        serve_slots=4,
        metrics=free_port(),
    )
    with run_names() as names:
        config = edge_config(ONE_EMBEDDER, ports)
        address = "{}:{}".format(*names.socket.getsockname())
        here = config.haproxy_cfg.replace("parse-resolv-conf", f"nameserver test {address}")
        with run_haproxy(tmp_path, replace(config, haproxy_cfg=here), ports.listen or 0):
            yield names, ports


def test_proxies_come_and_go(edge: tuple[Names, EdgePorts]) -> None:
    names, ports = edge
    port, first, second = ports.listen or 0, Seen(), Seen()
    assert call(port) == "UNAVAILABLE: the fleet is starting or down: try again"
    with run_server(first, ports.serve_grpc, "127.0.0.1") as one:
        names.addresses = ("127.0.0.1",)
        wait_until(answered(port), "the first proxy is not found")
        assert names.asked == {NAME}
        with run_server(second, ports.serve_grpc, "127.0.0.2"):
            names.addresses = ("127.0.0.1", "127.0.0.2")
            wait_until(lambda: bool(call(port) and second.metadata), "the second is not found")
            names.addresses = ("127.0.0.2",)
            wait_until(lambda: passed_over(first, port), "the first is still called")
            one.stop(0).wait()
            assert all(call(port).startswith("emb-docs") for _ in range(5))


def passed_over(seen: Seen, port: int) -> bool:
    """Tell whether a few calls in a row reach somebody else."""
    before = len(seen.metadata)
    return all(answered(port)() for _ in range(4)) and len(seen.metadata) == before


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_probes_and_prometheus_have_a_port(edge: tuple[Names, EdgePorts]) -> None:
    _, ports = edge
    metrics = ports.metrics or 0
    assert get(metrics, "/healthz") == (200, "ok")
    status, text = get(metrics, "/metrics")
    assert (status, "haproxy_frontend_http_requests_total" in text) == (200, True)
    assert get(metrics, "/admin")[0] == 404
