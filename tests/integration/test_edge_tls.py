"""The rendered edge with certificates: who gets in, by what it brings."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from certificates import Pair, pem, signed
from edge_harness import Seen, free_port, run_edge, run_server

from embedfleet.rendering.edge import CERTIFICATE_FILE, CLIENT_CA_FILE, PRIVATE_KEY_FILE
from embedfleet.v1 import embedding_pb2

METHOD = "/embedfleet.v1.EmbeddingService/Embed"
FLEET = """
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {name: secure}
spec: {tls: {certificateFile: /tls/tls.crt, privateKeyFile: /tls/tls.key%s}}
---
apiVersion: embedfleet.io/v1alpha1
kind: Embedder
metadata: {name: docs}
spec: {model: {source: embedded/embedder}}
"""
SERVER_ONLY = FLEET % ""
BOTH_SIDES = FLEET % ", clientCaFile: /tls/ca.crt"

AUTHORITY = signed("authority")
STRANGER = signed("stranger")
SERVER = pem(signed("server", AUTHORITY))
CLIENT = pem(signed("client", AUTHORITY))
FORGED = pem(signed("client", STRANGER))
ROOT = pem(AUTHORITY)[0]


@pytest.fixture(scope="module", params=[SERVER_ONLY, BOTH_SIDES], ids=["tls", "mtls"])
def secure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, bool]]:
    folder, behind, port = tmp_path_factory.mktemp("tls"), free_port(), free_port()
    _write(folder)
    with run_server(Seen(), behind), run_edge(folder, request.param, port, behind):
        yield port, request.param == BOTH_SIDES


def _write(folder: Path) -> None:
    (folder / CERTIFICATE_FILE).write_bytes(SERVER[0])
    (folder / PRIVATE_KEY_FILE).write_bytes(SERVER[1])
    (folder / CLIENT_CA_FILE).write_bytes(ROOT)


def _call(channel: grpc.Channel) -> str:
    call = channel.unary_unary(METHOD, response_deserializer=bytes.decode)
    message = embedding_pb2.EmbedRequest(model="docs").SerializeToString()
    return str(call(message, timeout=10)).split()[0]


@pytest.mark.parametrize(
    ("brings", "welcome_without_client_ca", "welcome_with_client_ca"),
    [(None, True, False), (CLIENT, True, True), (FORGED, True, False)],
    ids=["nothing", "certificate", "forged"],
)
def test_clients_get_in_by_what_they_bring(
    secure: tuple[int, bool],
    brings: Pair | None,
    welcome_without_client_ca: bool,
    welcome_with_client_ca: bool,
) -> None:
    port, verifies = secure
    chain, key = brings or (None, None)
    credentials = grpc.ssl_channel_credentials(ROOT, key, chain)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        if welcome_with_client_ca if verifies else welcome_without_client_ca:
            assert _call(channel) == "emb-docs"
        else:
            with pytest.raises(grpc.RpcError) as refused:
                _call(channel)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_plain_text_is_refused(secure: tuple[int, bool]) -> None:
    with grpc.insecure_channel(f"localhost:{secure[0]}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            _call(channel)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_garbage_does_no_harm(secure: tuple[int, bool]) -> None:
    port, _ = secure
    with socket.create_connection(("localhost", port)) as client:
        client.sendall(b"\x16\x03\x01" + b"\xff" * 500)
        client.settimeout(5)
        while client.recv(4096):
            pass
    credentials = grpc.ssl_channel_credentials(ROOT, CLIENT[1], CLIENT[0])
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        assert _call(channel) == "emb-docs"
