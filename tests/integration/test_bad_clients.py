"""Clients that misbehave: too much, too slow, too many, gone. Others are answered meanwhile."""

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest
from edge_harness import wait_until
from fleet_calls import TIMEOUT_SECONDS, Caller, Refusal, ids, pairs, texts
from raw_http2 import DATA, END_STREAM, PREFACE, SETTINGS, frame, opening

from embedfleet.client import Client
from embedfleet.local.changing import apply
from embedfleet.resources import parse_manifests
from embedfleet.v1 import embedding_pb2, reranking_pb2

EMBED, RERANK = "EmbeddingService/Embed", "RerankingService/Rerank"
EMBED_STREAM = "EmbeddingService/EmbedStream"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
FLEET = Path(__file__).with_name("fleet.yaml")
MEBIBYTE = 2**20
MAX_MESSAGE_BYTES = 64 * MEBIBYTE
MAX_GROWTH_BYTES = 256 * MEBIBYTE
"""For a replica, over all of this file. The messages below add up to many times as much."""

PROBE_SECONDS = 3.0
"""Enough to be refused in, too little for computing what is huge."""
HUGE = ids("docs", *[[5] * 400] * 2000)
"""800,000 of the 1,000,000 tokens that may wait: two of these do not fit, and one takes long."""


@pytest.fixture(autouse=True)
def _others_are_answered(witness, caller):
    yield
    assert len(caller.call(EMBED, texts("docs", "a")).embeddings[0].values) == 256
    assert len(caller.call(RERANK, pairs("relevance", "q", "a")).results) == 1


def stream_message(id_="0", count=1, model="docs", **options):
    items = [embedding_pb2.EmbedItem(text="a", id=id_)] * count
    options.setdefault("input_type", "DOCUMENT")
    return embedding_pb2.EmbedStreamRequest(model=model, items=items, **options)


# ---- too much


def test_message_over_the_limit_is_refused_by_its_length(caller):
    request = b"\x0a\x04docs" + bytes(200_000_000)
    refused = caller.refusal(EMBED, request)
    assert refused.code is EXHAUSTED
    for fragment in (str(len(request)), str(MAX_MESSAGE_BYTES), "maxMessageBytes", "fewer items"):
        assert fragment in refused.message


def test_message_over_the_limit_is_refused_before_it_has_arrived(fleet):
    host, _, port = fleet.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(opening(f"/embedfleet.v1.{EMBED}"))
        client.sendall(frame(DATA, 0, 1, b"\x00" + struct.pack(">I", 200_000_000)))
        received = b""
        while b"grpc-message" not in received:
            # One small piece at a time, as a slow client sends; the answer does not wait for them.
            client.sendall(frame(DATA, 0, 1, b"\x0a\x04docs"))
            received += client.recv(65536)
    assert b"200000000 bytes" in received


def test_message_is_measured_decompressed(caller):
    request = texts("docs", "x" * (MAX_MESSAGE_BYTES + 1))
    refused = caller.refusal(EMBED, request, compression=grpc.Compression.Gzip)
    assert (refused.code, refused.reason) == (EXHAUSTED, "TOO_LARGE")
    for fragment in (str(request.ByteSize()), str(MAX_MESSAGE_BYTES), "maxMessageBytes"):
        assert fragment in refused.message


def test_what_can_never_fit_the_queue_is_no_overload(caller):
    refused = caller.refusal(EMBED, ids("docs", *[[5] * 800] * 2000))
    assert (refused.code, refused.reason) == (EXHAUSTED, "TOO_LARGE")
    assert refused.retry_seconds is None
    for fragment in ("1,602,000 tokens", "1,000,000", "Split"):
        assert fragment in refused.message


def test_a_prompt_before_each_of_many_texts_is_refused_by_its_tokens(caller):
    """Some kilobytes that would be more than a million tokens: 600 before each of 2,000 texts."""
    request = texts("docs", *["a"] * 2000, input_type="QUERY", instruction="x " * 600)
    refused = caller.refusal(EMBED, request)
    assert (refused.code, refused.reason) == (EXHAUSTED, "TOO_LARGE")
    for fragment in ("instruction takes", "2,000 texts", "1,000,000", "split"):
        assert fragment in refused.message


# ---- gone


def test_work_of_a_caller_that_gave_up_is_dropped(caller):
    """Two such requests do not fit the queue together, so the second tells that the first left."""
    for _ in range(2):
        refused = caller.refusal(EMBED, HUGE, timeout=PROBE_SECONDS)
        assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: _fits(caller), "the work was not dropped")


def test_work_of_a_caller_that_went_away_is_dropped(caller):
    calls = []

    def arrived():
        # Where the probe came first, there was no room for this.
        if not calls or calls[-1].done():
            calls.append(caller.method(EMBED).future(HUGE, timeout=TIMEOUT_SECONDS))
        return not _fits(caller)

    wait_until(arrived, "the work did not arrive")
    calls[-1].cancel()
    wait_until(lambda: _fits(caller), "the work was not dropped")


def _fits(caller):
    """Whether as much again would be admitted. Its deadline leaves no time to compute it."""
    refused = caller.refusal(EMBED, HUGE, timeout=PROBE_SECONDS)
    return refused.code is grpc.StatusCode.DEADLINE_EXCEEDED


# ---- too slow, too many


def test_a_thousand_idle_streams_can_all_be_used(fleet, caller):
    number_of_streams, turns = 1000, 2
    with Caller(fleet.endpoint) as crowd:
        waiting = [SimpleQueue() for _ in range(number_of_streams)]
        streams = [crowd.stream(EMBED_STREAM, iter(queue.get, None)) for queue in waiting]
        assert len(caller.call(EMBED, texts("docs", "a")).embeddings) == 1
        for turn in range(turns):
            for number, queue in enumerate(waiting):
                queue.put(stream_message(f"{number}/{turn}"))
            for number, stream in enumerate(streams):
                assert next(stream).embeddings[0].id == f"{number}/{turn}"
        for queue in waiting:
            queue.put(None)
        assert [list(stream) for stream in streams] == [[]] * number_of_streams


def test_a_client_that_never_reads_is_not_read_from(fleet, caller):
    """A few kilobytes asked for each megabyte answered: without bounds the answers pile up."""
    sent = []

    def requests():
        while True:
            sent.append(1)
            yield stream_message(count=2048)

    def stalled():
        before = len(sent)
        time.sleep(5)
        return len(sent) == before

    with Caller(fleet.endpoint) as deaf:
        stream = deaf.stream(EMBED_STREAM, requests(), timeout=4 * TIMEOUT_SECONDS)
        wait_until(stalled, "the fleet goes on reading from a client that does not read")
        assert len(caller.call(EMBED, texts("docs", "a")).embeddings) == 1
        stream.cancel()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: fleet\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        bytes(1000),
        PREFACE + b"\xff" * 1000,
        opening(f"/embedfleet.v1.{EMBED}") + frame(DATA, END_STREAM, 1, b"\x01\xff\xff\xff\xff"),
        PREFACE + frame(SETTINGS, 0, 0, b""),
        b"",
    ],
    ids=["http1", "tls", "zeros", "bad-frames", "bad-length", "silence", "nothing"],
)
def test_other_protocols_do_no_harm(fleet, garbage):
    host, _, port = fleet.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as client:
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass


# ---- streams


@pytest.mark.parametrize("first", ["docs", "nobody"])
def test_bad_message_of_a_stream_leaves_the_stream_open(caller, first):
    sent = [
        stream_message("0", model=first),
        stream_message("1", dimension=31),
        stream_message("2", model="dogs"),
        stream_message("3"),
    ]
    answers = {a.embeddings[0].id: a for a in caller.stream(EMBED_STREAM, sent)}
    assert answers["1"].error.field == "dimension"
    assert answers["2"].error.field == "model"
    assert "'dogs'" in answers["2"].error.message
    assert len(answers["3"].embeddings[0].values) == 256
    assert bool(answers["0"].error.code) == (first == "nobody")


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip], ids=["plain", "gzip"])
def test_message_over_the_limit_leaves_the_stream_open(caller, compression):
    """The edge measures only the first of a stream's messages."""
    too_large = stream_message("1")
    too_large.items[0].text = "x" * (MAX_MESSAGE_BYTES + 1)
    sent = [stream_message("0"), too_large, stream_message("2")]
    answers = list(caller.stream(EMBED_STREAM, sent, compression=compression))
    (failed,) = [a for a in answers if a.HasField("error")]
    assert failed.error.reason == "TOO_LARGE"
    for fragment in (str(too_large.ByteSize()), str(MAX_MESSAGE_BYTES), "maxMessageBytes"):
        assert fragment in failed.error.message
    assert {a.embeddings[0].id for a in answers if a.embeddings} == {"0", "2"}


def test_bad_message_of_a_rerank_stream_leaves_the_stream_open(caller):
    sent = [
        reranking_pb2.RerankStreamRequest(model="relevance", query=query, documents=["a"], id=query)
        for query in ("", "q")
    ]
    answers = {a.id: a for a in caller.stream("RerankingService/RerankStream", sent)}
    assert answers[""].error.field == "query"
    assert len(answers["q"].results) == 1


# ---- overload


@pytest.fixture
def narrow(fleet):
    """The same models with room for little more than one request, and back."""
    wide = FLEET.read_text()
    batching = (
        "spec:\n  batching: {maxQueuedTokens: 1024, maxQueuedItems: 8, maxItemsPerRequest: 8}"
    )
    batching += "\n"
    quiet = lambda line: None  # noqa: E731
    apply(parse_manifests(wide.replace("spec:\n", batching)), fleet, quiet)
    yield
    apply(parse_manifests(wide), fleet, quiet)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (EMBED, ids("docs", [5] * 900)),
        (EMBED, ids("docs", *[[5] * 110] * 8)),
        (RERANK, pairs("relevance", "q", *["word " * 150] * 3)),
    ],
    ids=["single", "batch", "rerank"],
)
def test_overload_says_when_to_come_back(caller, method, request_):
    calls = [caller.method(method).future(request_, timeout=TIMEOUT_SECONDS) for _ in range(100)]
    answers = [call.exception() for call in calls]
    refused = [Refusal.of(each) for each in answers if isinstance(each, grpc.RpcError)]
    assert {(each.code, each.reason) for each in refused} == {(EXHAUSTED, "OVERLOADED")}
    assert 0 < len(refused) < 100
    for each in refused:
        assert each.retry_seconds > 0
        assert "The queue holds" in each.message
        assert "add replicas" in each.message


@pytest.mark.usefixtures("narrow")
def test_the_sdk_comes_back_when_told(fleet):
    with Client(fleet.endpoint) as client, ThreadPoolExecutor(30) as threads:
        batches = [["word " * 150] * 4] * 30
        answers = list(threads.map(lambda batch: client.embed_documents("docs", batch), batches))
    assert [len(each) for each in answers] == [4] * 30


def test_replicas_are_the_same_and_no_larger(witness):
    assert max(witness.growth().values()) < MAX_GROWTH_BYTES
