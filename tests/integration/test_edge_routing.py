"""The rendered edge in front of a server that tells which application it was asked for."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from edge_harness import EDGE_ID, OPTIONS, Seen, free_port, run_edge, run_server, wait_until
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from raw_http2 import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, opening

from embedfleet.config import Settings
from embedfleet.errors import Unavailable
from embedfleet.local.edge import reload_edge
from embedfleet.local.node import MARK
from embedfleet.rendering.edge import MAP_FILE
from embedfleet.v1 import embedding_pb2, model_pb2, reranking_pb2

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
EMBED = "/embedfleet.v1.EmbeddingService/Embed"
EMBED_STREAM = "/embedfleet.v1.EmbeddingService/EmbedStream"
RERANK = "/embedfleet.v1.RerankingService/Rerank"
LONG_ALIAS = "a" * 128

MANIFESTS = f"""
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {{name: edge}}
spec: {{grpc: {{maxMessageBytes: {MAX_MESSAGE_BYTES}}}}}
---
apiVersion: embedfleet.io/v1alpha1
kind: Embedder
metadata: {{name: docs}}
spec:
  model: {{size: 0.6B}}
  aliases: [text-embedding-3-small, {LONG_ALIAS}]
---
apiVersion: embedfleet.io/v1alpha1
kind: Embedder
metadata: {{name: docs-small}}
spec:
  model: {{source: embedded/embedder}}
---
apiVersion: embedfleet.io/v1alpha1
kind: Reranker
metadata: {{name: relevance}}
spec:
  model: {{source: embedded/reranker}}
""".replace("size: 0.6B", 'size: "0.6B"')


@dataclass(frozen=True)
class Edge:
    port: int
    channel: grpc.Channel
    seen: Seen
    folder: Path

    def unary(self, path: str, message: Any, **options: Any) -> str:
        call = self.channel.unary_unary(
            path,
            request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=bytes.decode,
        )
        return str(call(message, timeout=20, **options))

    def application(self, path: str, message: Any, **options: Any) -> str:
        return self.unary(path, message, **options).split()[0]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder, seen = tmp_path_factory.mktemp("edge"), Seen()
    port, behind = free_port(), free_port()
    with (
        run_server(seen, behind),
        run_edge(folder, MANIFESTS, port, behind),
        grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel,
    ):
        yield Edge(port, channel, seen, folder)


def embed(model: str, *texts: str) -> embedding_pb2.EmbedRequest:
    items = [embedding_pb2.EmbedItem(text=text) for text in texts]
    return embedding_pb2.EmbedRequest(model=model, items=items)


@pytest.mark.parametrize(
    ("path", "message", "application"),
    [
        (EMBED, embed("docs", "a"), "emb-docs"),
        (EMBED, embed("docs-small", "a"), "emb-docs-small"),
        (EMBED, embed("text-embedding-3-small", "a"), "emb-docs"),
        (EMBED, embed("Qwen/Qwen3-Embedding-0.6B", "a"), "emb-docs"),
        (EMBED, embed(LONG_ALIAS, "a"), "emb-docs"),
        (EMBED, embed("relevance", "a"), "rrk-relevance"),
        (EMBED, embed("docs"), "emb-docs"),
        (EMBED, embed("", "a"), "router"),
        (EMBED, embed("doc", "a"), "router"),
        (EMBED, embed("DOCS", "a"), "router"),
        (EMBED, embed("docs ", "a"), "router"),
        (EMBED, embed("docs\r\napplication: rrk-relevance", "a"), "router"),
        (EMBED, embed("é" * 400, "a"), "router"),
        (EMBED, b"", "router"),
        (EMBED, b"\xff" * 50, "router"),
        (RERANK, reranking_pb2.RerankRequest(model="relevance", query="q"), "rrk-relevance"),
        (
            "/embedfleet.v1.ModelService/Tokenize",
            model_pb2.TokenizeRequest(model="docs", texts=["a"]),
            "emb-docs",
        ),
        (
            "/embedfleet.v1.ModelService/GetModel",
            model_pb2.GetModelRequest(model="docs"),
            "router",
        ),
        ("/embedfleet.v1.ModelService/ListModels", model_pb2.ListModelsRequest(), "router"),
        ("/tei.v1.Embed/Embed", embed("docs", "a"), "router"),
        ("/inference.GRPCInferenceService/ModelInfer", embed("docs", "a"), "router"),
        ("/grpc.health.v1.Health/Check", b"", "router"),
        ("/no.such.Service/Method", b"", "router"),
    ],
)  # fmt: skip
def test_application_is_found_in_the_message(
    edge: Edge, path: str, message: Any, application: str
) -> None:
    assert edge.application(path, message) == application


def test_model_is_found_wherever_it_stands_near_the_front(edge: Edge) -> None:
    # Writers may put fields in any order: input_type (field 3) first, then the model.
    message = b"\x18\x01" + embed("docs", "a").SerializeToString()
    assert edge.application(EMBED, message) == "emb-docs"


def test_model_behind_a_long_text_is_left_to_the_router(edge: Edge) -> None:
    text = embedding_pb2.EmbedRequest(items=[embedding_pb2.EmbedItem(text="x" * 1000)])
    message = text.SerializeToString() + embed("docs").SerializeToString()
    assert edge.application(EMBED, message) == "router"


def test_large_message_passes_whole(edge: Edge) -> None:
    message = embed("docs", "x" * 20_000_000)
    assert edge.unary(EMBED, message) == f"emb-docs {message.ByteSize()}"


def test_message_over_the_limit_is_refused_before_it_is_read(edge: Edge) -> None:
    message = embed("docs", "x" * (MAX_MESSAGE_BYTES + 1))
    before = len(edge.seen.metadata)
    with pytest.raises(grpc.RpcError) as refused:
        edge.unary(EMBED, message)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == (
        f"message is {message.ByteSize()} bytes; this fleet takes at most {MAX_MESSAGE_BYTES}"
        " (Fleet spec.grpc.maxMessageBytes): send fewer items at a time"
    )
    assert len(edge.seen.metadata) == before


def test_message_at_the_limit_passes(edge: Edge) -> None:
    frame = embed("docs", "x" * MAX_MESSAGE_BYTES).ByteSize() - MAX_MESSAGE_BYTES
    message = embed("docs", "x" * (MAX_MESSAGE_BYTES - frame))
    assert edge.unary(EMBED, message) == f"emb-docs {MAX_MESSAGE_BYTES}"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_message_goes_to_the_router(edge: Edge, compression: grpc.Compression) -> None:
    answer = edge.unary(EMBED, embed("docs", "x" * 5000), compression=compression)
    assert answer == f"router {embed('docs', 'x' * 5000).ByteSize()}"


def test_names_that_only_the_edge_may_say_are_dropped(edge: Edge) -> None:
    said = (
        ("application", "rrk-relevance"),
        ("x-embedfleet-tenant", "root"),
        ("x-embedfleet-timeout", "1n"),
        ("x-other", "kept"),
    )
    assert edge.application(EMBED, embed("docs", "a"), metadata=said) == "emb-docs"
    metadata = edge.seen.metadata[-1]
    assert metadata["application"] == "emb-docs"
    assert metadata["x-other"] == "kept"
    assert "x-embedfleet-tenant" not in metadata
    # What is left of 20 s as the client library wrote it, with what it adds for its own clock.
    said = metadata["x-embedfleet-timeout"]
    assert 10 < int(said[:-1]) * {"S": 1.0, "m": 1e-3}[said[-1]] <= 20.1


def test_stream_is_routed_by_its_first_message(edge: Edge) -> None:
    call = edge.channel.stream_stream(
        EMBED_STREAM,
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=bytes.decode,
    )
    first, second = embed("docs", "a"), embed("relevance", "b")
    answers = list(call(iter([first, second]), timeout=20))
    assert answers == [f"emb-docs {first.ByteSize()}", f"emb-docs {second.ByteSize()}"]


@pytest.mark.parametrize(
    ("first", "application"),
    [(embed("docs", "a"), "emb-docs"), (embed("q"), "router"), (embed(""), "router")],
    ids=["model", "shortest-name", "empty-message"],
)
def test_stream_may_open_long_before_its_first_message(
    edge: Edge, first: embedding_pb2.EmbedRequest, application: str
) -> None:
    call = edge.channel.stream_stream(
        EMBED_STREAM,
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=bytes.decode,
    )
    answered = threading.Event()

    def requests() -> Iterator[embedding_pb2.EmbedRequest]:
        time.sleep(1.5)
        yield first
        answered.wait(10)  # the stream stays open: what was sent must be enough

    answers = call(requests(), timeout=20)
    assert next(answers).split()[0] == application
    answered.set()
    assert list(answers) == []


def test_name_that_arrives_in_pieces_is_never_taken_for_a_shorter_one(edge: Edge) -> None:
    # "docs-small" cut after "docs" must not reach emb-docs: whole name or router.
    body = embed("docs-small", "a").SerializeToString()
    framed = b"\x00" + struct.pack(">I", len(body)) + body
    cut = 5 + 2 + len("docs")
    before = len(edge.seen.metadata)
    with socket.create_connection(("127.0.0.1", edge.port)) as client:
        client.sendall(opening(EMBED))
        client.sendall(frame(DATA, 0, 1, framed[:cut]))
        time.sleep(0.3)
        client.sendall(frame(DATA, END_STREAM, 1, framed[cut:]))
        wait_until(lambda: len(edge.seen.metadata) > before, "request did not arrive")
    assert edge.seen.metadata[-1]["application"] in {"emb-docs-small", "router"}


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\n\r\nabcde",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"\x00" * 1000,
        PREFACE + b"\xff" * 1000,
        PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 5, 1, b"\x80\x80\x80"),
        b"",
    ],
    ids=["http1-get", "http1-post", "tls-hello", "zeros", "bad-frames", "bad-headers", "nothing"],
)
def test_other_protocols_do_no_harm(edge: Edge, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as client:
        client.settimeout(5)
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass
    assert edge.application(EMBED, embed("docs", "a")) == "emb-docs"


def test_metrics_are_read_from_a_socket(edge: Edge) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(edge.folder / "metrics.sock"))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert 'haproxy_frontend_http_requests_total{proxy="fleet"}' in text


def test_names_change_without_a_reload(edge: Edge) -> None:
    def admin(command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(edge.folder / "admin.sock"))
            client.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    assert edge.application(EMBED, embed("later", "a")) == "router"
    assert admin("add map apps.map later emb-docs").strip() == ""
    assert edge.application(EMBED, embed("later", "a")) == "emb-docs"


def test_reload_reaches_open_connections_and_keeps_what_runs(tmp_path: Path) -> None:
    port, behind = free_port(), free_port()
    with (
        run_server(Seen(), behind),
        run_edge(tmp_path, MANIFESTS, port, behind) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        edge = Edge(port, channel, Seen(), tmp_path)
        assert edge.application(EMBED, embed("later", "a")) == "router"
        reloaded = threading.Event()

        def requests() -> Iterator[embedding_pb2.EmbedRequest]:
            yield embed("docs", "a")
            reloaded.wait(10)
            yield embed("docs", "b")

        stream = channel.stream_stream(
            EMBED_STREAM,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=bytes.decode,
        )
        answers = stream(requests(), timeout=30)
        next(answers)
        with (tmp_path / MAP_FILE).open("a") as names:
            names.write("later emb-docs\n")
        assert reload_edge(process.pid, EDGE_ID)
        wait_until(
            lambda: edge.application(EMBED, embed("later", "a")) == "emb-docs",
            "the open connection still has the old names",
        )
        reloaded.set()
        assert [answer.split()[0] for answer in answers] == ["emb-docs"]


def test_an_edge_that_does_not_reload_is_told() -> None:
    """Under another's mark it is left alone; under its own it has to start a worker."""
    ignoring = "from signal import *; import time; signal(SIGUSR2, 1); print(); time.sleep(60)"
    environment = {**Settings.load().environment, MARK: EDGE_ID}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", ignoring], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not reload_edge(process.pid, "another")
        with pytest.raises(Unavailable, match=r"started no new worker .* See edge\.log"):
            reload_edge(process.pid, EDGE_ID)
        process.kill()
    assert not reload_edge(process.pid, EDGE_ID)


def assert_told_to_come_back(error: grpc.RpcError, code: grpc.StatusCode, said: str) -> None:
    assert error.code() is code
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.message == said
    (detail,) = status.details
    hint = error_details_pb2.RetryInfo()
    assert detail.Unpack(hint)
    assert hint.retry_delay.seconds == 2


def assert_starting(error: grpc.RpcError) -> None:
    said = "the fleet is starting or down: try again"
    assert_told_to_come_back(error, grpc.StatusCode.UNAVAILABLE, said)


class Refusing(grpc.GenericRpcHandler):
    """Refuses calls to the applications that are named, as Serve's proxies do, in their words."""

    def __init__(self, refusals: Mapping[str, tuple[grpc.StatusCode, str]]) -> None:
        self._refusals = refusals

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = dict(details.invocation_metadata)["application"]
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(*self._refusals[name])
        )


def test_what_serve_has_no_replica_of_yet_is_to_be_asked_again(tmp_path: Path) -> None:
    port, behind = free_port(), free_port()
    server = grpc.server(ThreadPoolExecutor(2))
    missing, exhausted = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED
    refusals = {
        "emb-docs": (missing, "Application 'emb-docs' not found. Ping /ray.serve"),
        "emb-docs-small": (
            exhausted,
            "Request dropped due to backpressure (num_queued_requests=1024, "
            "max_queued_requests=1024).",
        ),
        "rrk-relevance": (exhausted, "queue is full"),
        "router": (missing, "No model has this name."),
    }
    server.add_generic_rpc_handlers((Refusing(refusals),))
    server.add_insecure_port(f"127.0.0.1:{behind}")
    server.start()
    with (
        run_edge(tmp_path, MANIFESTS, port, behind),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        edge = Edge(port, channel, Seen(), tmp_path)

        def refusal(model: str) -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as refused:
                edge.unary(EMBED, embed(model, "a"))
            return refused.value

        assert_starting(refusal("docs"))
        said = "too many calls wait for a replica of this model: try again"
        assert_told_to_come_back(refusal("docs-small"), exhausted, said)
        for model, application in [("relevance", "rrk-relevance"), ("nobody", "router")]:
            left = refusal(model)
            assert (left.code(), left.details()) == refusals[application], "passes as it was said"
    server.stop(0).wait()


def test_nothing_behind_the_edge_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    seen, port, behind = Seen(), free_port(), free_port()
    with (
        run_edge(tmp_path, MANIFESTS, port, behind),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        edge = Edge(port, channel, seen, tmp_path)
        with pytest.raises(grpc.RpcError) as refused:
            edge.unary(EMBED, embed("docs", "a"))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert_starting(refused.value)
        codes: list[object] = []

        def answers() -> bool:
            try:
                return edge.application(EMBED, embed("docs", "a")) == "emb-docs"
            except grpc.RpcError as error:
                codes.append(error.code())
                return False

        with run_server(seen, behind):
            wait_until(answers, "the edge did not find the server again")
        assert set(codes) <= {grpc.StatusCode.UNAVAILABLE}
