"""A stream's messages stand for themselves: one that is bad never ends the stream."""

from __future__ import annotations

import asyncio

import pytest
from call_context import Context, received

from embedfleet.errors import InvalidRequest, TooLarge
from embedfleet.messages import Role
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime import EmbedderRuntime, load_model
from embedfleet.serving.codec import embed_stream_failure, rerank_stream_failure
from embedfleet.serving.ingress import STREAM_ITEMS, STREAM_MESSAGES, Call, Ingress, StreamHandler
from embedfleet.serving.replicas import _ModelReplica
from embedfleet.serving.services import Received
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import reranking_pb2 as wire_reranking


def message(model: bytes, *ids: bytes) -> wire_embedding.EmbedStreamRequest:
    items = [wire_embedding.EmbedItem(text=b"x", id=id_) for id_ in ids]
    return wire_embedding.EmbedStreamRequest(model=model, items=items)


async def echo(request, call):
    if request.model == b"refused":
        raise InvalidRequest("model is refused; 1 is allowed. Choose it.", field="model")
    if request.model == b"broken":
        raise RuntimeError("a handler's own mistake")
    return wire_embedding.EmbedStreamResponse(dimension=len(request.items))


def ingress(answer=echo) -> Ingress:
    handler = StreamHandler(answer, embed_stream_failure, lambda request: len(request.items))
    return Ingress({}, {wire_embedding.EmbedStreamRequest: handler})


async def stream(*requests):
    for request in requests:
        yield request if isinstance(request, Received) else received(request)


@pytest.mark.parametrize(
    ("bad", "reason", "ids"),
    [
        (message(b"refused", b"a", b"b"), b"INVALID_REQUEST", [b"a", b"b"]),
        (message(b"broken", b"a"), b"ENGINE_ERROR", [b"a"]),
        (Received(wire_embedding.EmbedStreamRequest, b"\x0a\xff"), b"INVALID_REQUEST", []),
    ],
    ids=["refused", "handler fails", "not a message"],
)
async def test_a_bad_message_is_answered_and_the_stream_goes_on(bad, reason, ids):
    requests = stream(message(b"m", b"1"), bad, message(b"m", b"2", b"3"))
    context = Context()
    answers = [a async for a in ingress().EmbedStream(requests, context)]
    assert context.code is None
    assert sorted(a.dimension for a in answers) == [0, 1, 2]
    (failed,) = [a for a in answers if a.HasField("error")]
    assert failed.error.reason == reason
    assert [e.id for e in failed.embeddings] == ids


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "second", "last"])
async def test_a_message_over_the_limit_is_answered_unread_and_the_stream_goes_on(place):
    """The edge measures only a stream's first message, and that as it is sent."""
    seen = []

    async def note(request, call):
        seen.append(len(request.items))
        return await echo(request, call)

    fits = message(b"m", b"1", b"2", b"3")
    messages = [fits, fits]
    # No message at all: had it been parsed first, that would be the complaint.
    messages.insert(place, Received(wire_embedding.EmbedStreamRequest, b"\xff" * 70_001))
    served, context = ingress(note), Context()
    served.max_message_bytes = 70_000
    answers = [a async for a in served.EmbedStream(stream(*messages), context)]
    assert context.code is None
    assert seen == [3, 3]
    (failed,) = [a for a in answers if a.HasField("error")]
    assert (failed.error.reason, failed.error.code) == (b"TOO_LARGE", 8)
    for part in (b"70001 bytes", b"70000", b"maxMessageBytes", b"fewer items"):
        assert part in failed.error.message


async def test_a_call_over_the_limit_is_refused_unread():
    served, context = Ingress({wire_embedding.EmbedRequest: echo}, {}), Context()
    served.max_message_bytes = 70_000
    await served.Embed(Received(wire_embedding.EmbedRequest, b"\xff" * 70_001), context)
    assert context.code.name == "RESOURCE_EXHAUSTED"
    assert "70001 bytes" in context.details


def test_a_message_of_exactly_the_limit_is_read_and_let_go_of():
    request = message(b"m", b"1")
    size = request.ByteSize()
    whole = received(request)
    assert whole.parse(size) == request
    with pytest.raises(TooLarge):
        received(request).parse(size - 1)
    assert whole.parse(0) == wire_embedding.EmbedStreamRequest()


async def test_a_stream_of_another_service_is_refused_with_a_sentence():
    context = Context()
    requests = stream(wire_reranking.RerankStreamRequest(model=b"m"))
    assert [a async for a in ingress().RerankStream(requests, context)] == []
    assert context.code.name == "UNIMPLEMENTED"
    assert "RerankStreamRequest" in context.details


async def test_an_empty_stream_ends():
    assert [a async for a in ingress().EmbedStream(stream(), Context())] == []


@pytest.mark.parametrize(
    ("items_each", "most"),
    [(1, STREAM_MESSAGES), (STREAM_ITEMS // 4, 4), (STREAM_ITEMS * 2, 1)],
    ids=["by messages", "by items", "one too large goes alone"],
)
async def test_a_client_that_does_not_read_is_not_read_from(items_each, most):
    read = []

    async def endless():
        while True:
            read.append(None)
            yield received(message(b"m", *([b"i"] * items_each)))

    answers = ingress().EmbedStream(endless(), Context())
    await anext(answers)
    for _ in range(200):
        await asyncio.sleep(0)
    # One answer was taken, and one more message is read before there is no room for it.
    assert len(read) <= most + 2
    await answers.aclose()


def test_a_failed_ranking_keeps_its_id():
    request = wire_reranking.RerankStreamRequest(id=b"7")
    assert rerank_stream_failure(request, InvalidRequest("no")).id == b"7"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1S", 1.0), ("250m", 0.25), ("99999999u", 99.999999), ("2M", 120.0), ("1H", 3600.0)],
)
def test_a_timeout_becomes_a_deadline(value, seconds):
    call = Call.of(Context(("x-embedfleet-timeout", value)))
    assert call.deadline - Call(0.0).deadline == pytest.approx(seconds, abs=1.0)


@pytest.mark.parametrize(
    "value", ["", "S", "1", "-1S", "123456789S", "\u0661S", "1e3S", "9" * 400 + "H"]
)
def test_what_is_no_timeout_is_no_deadline(value):
    assert Call.of(Context(("x-embedfleet-timeout", value))).deadline is None


class Replica(_ModelReplica):
    """A replica that Ray did not start, so its model is not its own to close."""

    def __del__(self):
        pass


async def test_the_limit_is_that_of_the_fleet():
    arguments = ReplicaArguments(
        name="docs", role=Role.EMBEDDER, source="embedded/embedder", backend="echo"
    )
    runtime = EmbedderRuntime(load_model(arguments, 1), ReplicaSettings())
    replica = Replica(runtime, {}, {})
    await replica.reconfigure(ReplicaSettings(max_message_bytes=70_000).model_dump(mode="json"))
    assert replica.max_message_bytes == 70_000
    await runtime.close()
