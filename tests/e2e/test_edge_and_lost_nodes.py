"""The edge and nodes that are gone without a word: their calls are given back, to be made again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e import network
from e2e.network import Namespace, Network
from edge_harness import EMBED, ONE_EMBEDDER, edge_config, free_port, run_haproxy

from embedfleet.rendering.edge import EdgePorts
from embedfleet.v1 import embedding_pb2

REASON = network.missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there")

PORT = 9000
SILENT = f"""
import threading
from concurrent.futures import ThreadPoolExecutor
import grpc
class Silent(grpc.GenericRpcHandler):
    def service(self, details):
        def answer(request, context):
            print("called", flush=True)
            threading.Event().wait()
        return grpc.unary_unary_rpc_method_handler(answer)
server = grpc.server(ThreadPoolExecutor(2), handlers=[Silent()])
server.add_insecure_port("0.0.0.0:{PORT}")
server.start()
print("up", flush=True)
server.wait_for_termination()
"""


@pytest.fixture
def made() -> Iterator[Network]:
    with network.bridge() as made:
        yield made


@pytest.fixture
def node(made: Network) -> Iterator[tuple[Namespace, subprocess.Popen[bytes]]]:
    """A node that takes calls and never answers."""
    found = made.join(1)
    command = ["ip", "netns", "exec", found.name, sys.executable, "-c", SILENT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield found, process
    process.kill()
    process.communicate()


def test_a_call_on_a_node_that_is_cut_off_is_given_back(
    made: Network, node: tuple[Namespace, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    where, process = node
    assert process.stdout is not None
    port = free_port()
    ports = EdgePorts(
        serve_host=where.address, serve_grpc=PORT, listen=port, listen_host="127.0.0.1"
    )
    request = embedding_pb2.EmbedRequest(model="docs", items=[embedding_pb2.EmbedItem(text="a")])
    with (
        run_haproxy(tmp_path, edge_config(ONE_EMBEDDER, ports), port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_unary(EMBED).future(request.SerializeToString(), timeout=60)
        assert process.stdout.readline() == b"called\n"
        made.cut(where)
        began = time.monotonic()
        failure = call.exception()
    assert failure.code() is grpc.StatusCode.UNAVAILABLE, failure
    # Of a call's 60 s, enough is left for another attempt.
    assert time.monotonic() - began < 30
