"""Both clients against a real server: batching, order, retries, deadlines, errors."""

import asyncio
import itertools
import threading
from collections import Counter

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from embedfleet import errors
from embedfleet.client import AsyncClient, Client, ClientConfig
from embedfleet.v1 import common_pb2, embedding_pb2, reranking_pb2

SMALL = ClientConfig(max_batch_items=4, max_in_flight=3)


def vector_of(text, dimension=3):
    """A vector that only this text has."""
    return [float(len(text)), float(sum(map(ord, text))), float(ord(text[-1]))][:dimension]


def echo(request, _context):
    return embedding_pb2.EmbedResponse(
        embeddings=[
            embedding_pb2.Embedding(values=vector_of(item.text), num_tokens=len(item.text))
            for item in request.items
        ],
        dimension=3,
        output_type=common_pb2.FLOAT32,
        usage=common_pb2.Usage(input_tokens=10, num_items=len(request.items)),
        timings=common_pb2.Timings(compute_nanoseconds=500_000_000),
        provenance=common_pb2.Provenance(model="docs", revision="r1", contract_hash="c1"),
    )


def refuse(context, code, reason="", retry_after=None, message="no"):
    """End a call as a fleet would, with what google.rpc has to say about it."""
    status = status_pb2.Status(code=code.value[0], message=message)
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="embedfleet.io")
        status.details.add().Pack(info)
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if status.details:
        context.abort_with_status(rpc_status.to_status(status))
    context.abort(code, message)


def test_vectors_come_in_the_order_of_a_long_input(serve, connect):
    texts = [f"text {i}" for i in range(103)]
    with connect(serve({"Embed": echo}), config=SMALL) as client:
        found = client.embed("docs", texts, input_type="DOCUMENT")
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, [vector_of(text) for text in texts])
    np.testing.assert_array_equal(found.num_tokens, [len(text) for text in texts])
    assert found.vectors.flags.writeable
    # 103 items in fours are 26 requests, each of which said 10 tokens and half a second.
    assert (found.usage.input_tokens, found.usage.num_items) == (260, 103)
    assert found.timings.compute_seconds == pytest.approx(13.0)
    assert found.provenance.contract_hash == "c1"


def test_requests_carry_what_was_asked(serve, connect):
    seen = []

    def answer(request, context):
        seen.append(request)
        return embedding_pb2.EmbedResponse(
            embeddings=[embedding_pb2.Embedding(packed=np.zeros(64, "<f2").tobytes())],
            dimension=64,
            output_type=common_pb2.FLOAT16,
        )

    with connect(serve({"Embed": answer})) as client:
        client.embed_queries(
            "docs",
            [np.array([5, 6, 7])],
            instruction="Find it",
            dimension=64,
            normalize=False,
            output_type="float16",
            truncation="END",
            priority="BULK",
            expected_contract_hash="c1",
        )
    assert seen == [
        embedding_pb2.EmbedRequest(
            model="docs",
            items=[embedding_pb2.EmbedItem(token_ids=common_pb2.TokenIds(ids=[5, 6, 7]))],
            input_type=common_pb2.QUERY,
            instruction="Find it",
            dimension=64,
            normalize=False,
            output_type=common_pb2.FLOAT16,
            truncation=common_pb2.END,
            priority=common_pb2.BULK,
            expected_contract_hash="c1",
        )
    ]


@pytest.mark.parametrize(
    ("output_type", "packed", "scale", "vectors", "components"),
    [
        # 0x3C00 is 1.0 and 0xC000 is -2.0 in IEEE 754 half precision.
        ("FLOAT16", b"\x00\x3c\x00\xc0", 0.0, [1.0, -2.0], [1.0, -2.0]),
        ("INT8", b"\x7f\x81", 0.5, [127, -127], [0.5, -0.5]),
        ("UINT8", b"\xff\x01", 0.5, [255, 1], [0.5, -0.5]),
        ("BINARY", b"\x00", 0.0, [0], None),
        ("UBINARY", b"\x80", 0.0, [128], None),
    ],
)
def test_every_output_type_is_read_as_the_contract_lays_it_out(
    serve, output_type, packed, scale, vectors, components
):
    def answer(request, context):
        return embedding_pb2.EmbedResponse(
            embeddings=[embedding_pb2.Embedding(packed=packed, scale=scale)],
            dimension=2,
            output_type=request.output_type,
        )

    with Client(serve({"Embed": answer})) as client:
        found = client.embed_documents("docs", ["x"], output_type=output_type)
    np.testing.assert_array_equal(found.vectors, [vectors])
    if components is None:
        with pytest.raises(errors.InvalidRequest, match="signs only"):
            found.dequantized()
    else:
        np.testing.assert_array_equal(found.dequantized(), [components])


def test_requests_under_way_stay_within_the_bound(serve, connect):
    lock, now, most = threading.Lock(), Counter(), Counter()
    together = threading.Barrier(3)

    def answer(request, context):
        with lock:
            now["calls"] += 1
            most["calls"] = max(most["calls"], now["calls"])
        # Only passes if three requests are here at once.
        together.wait(timeout=20)
        with lock:
            now["calls"] -= 1
        return echo(request, context)

    with connect(serve({"Embed": answer}), config=SMALL) as client:
        client.embed("docs", ["x"] * 36, input_type="DOCUMENT")
    assert most["calls"] == 3


def test_a_stream_reads_its_input_as_it_goes(serve, connect):
    taken = itertools.count()
    read = []

    def endless():
        for i in taken:
            read.append(i)
            yield f"text {i}"

    with connect(serve({"Embed": echo}), config=SMALL) as client:
        stream = client.embed_stream("docs", endless(), input_type="DOCUMENT")
        for index, vector in itertools.islice(stream, 50):
            assert list(vector) == vector_of(f"text {index}")
            # Three requests of four items under way, and one item to see that a batch is full.
            assert len(read) <= index + 1 + 4 * 3 + 1
        stream.close()
    assert len(read) <= 50 + 13


@pytest.mark.parametrize(
    ("code", "reason", "retry_after", "why"),
    [
        ("RESOURCE_EXHAUSTED", "OVERLOADED", 0.01, "the server says when"),
        ("RESOURCE_EXHAUSTED", "", 0.01, "another server says when"),
        ("UNAVAILABLE", "UNAVAILABLE", None, "a replica drains"),
        ("UNAVAILABLE", "", None, "a proxy has no backend"),
    ],
)
@pytest.mark.parametrize("num_texts", [1, 20])
def test_what_a_retry_can_mend_is_tried_again(
    serve, connect, code, reason, retry_after, why, num_texts
):
    calls = Counter()

    def answer(request, context):
        first = request.items[0].text
        calls[first] += 1
        if calls[first] <= 2:
            refuse(context, grpc.StatusCode[code], reason, retry_after)
        return echo(request, context)

    texts = [f"text {i}" for i in range(num_texts)]
    with connect(serve({"Embed": answer}), config=SMALL) as client:
        found = client.embed("docs", texts, input_type="DOCUMENT")
    np.testing.assert_array_equal(found.vectors, [vector_of(text) for text in texts])
    assert set(calls.values()) == {3}, why


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "WRONG_ROLE", errors.WrongRole),
        ("NOT_FOUND", "MODEL_NOT_FOUND", errors.ModelNotFound),
        ("FAILED_PRECONDITION", "CONTRACT_MISMATCH", errors.ContractMismatch),
        ("RESOURCE_EXHAUSTED", "", errors.TooLarge),
        ("INTERNAL", "NON_FINITE_RESULT", errors.NonFiniteResult),
        ("UNIMPLEMENTED", "", errors.Unsupported),
    ],
)
def test_what_no_retry_mends_is_raised_at_once(serve, connect, code, reason, kind):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        refuse(context, grpc.StatusCode[code], reason, message="texts are wrong")

    with connect(serve({"Embed": answer})) as client, pytest.raises(kind) as raised:
        client.embed("docs", ["x"], input_type="DOCUMENT")
    assert type(raised.value) is kind
    assert raised.value.message.startswith("texts are wrong")
    assert calls["all"] == 1


def test_a_hint_beyond_the_deadline_is_not_waited_for(serve, connect):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 60.0)

    with connect(serve({"Embed": answer})) as client, pytest.raises(errors.Overloaded) as raised:
        client.embed("docs", ["x"], input_type="DOCUMENT", timeout=5.0)
    assert raised.value.retry_after_seconds == 60.0
    assert calls["all"] == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("NOT_FOUND", "Application 'emb-docs' not found. Ping /ray.serve.RayServeAPIService/"),
        (
            "RESOURCE_EXHAUSTED",
            "Request dropped due to backpressure (num_queued_requests=1024, "
            "max_queued_requests=1024).",
        ),
    ],
)
def test_a_model_that_serve_has_no_replica_of_yet_is_waited_for(serve, connect, code, said):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] == 1:
            context.abort(grpc.StatusCode[code], said)
        return echo(request, context)

    # Without attempts to spare: the model is known to be coming.
    with connect(serve({"Embed": answer}), config=ClientConfig(max_attempts=1)) as client:
        assert len(client.embed("docs", ["x"], input_type="DOCUMENT")) == 1
    assert calls["all"] == 2


def test_a_call_whose_replica_ended_is_made_again(serve, connect):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] == 1:
            said = "The actor died unexpectedly before finishing this task.\n\tclass_name: Serve"
            context.abort(grpc.StatusCode.INTERNAL, said)
        return echo(request, context)

    with connect(serve({"Embed": answer})) as client:
        assert len(client.embed("docs", ["x"], input_type="DOCUMENT")) == 1
    assert calls["all"] == 2


def test_an_attempt_that_is_made_again_is_told_to_the_log(serve, connect, caplog):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] == 1:
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        return echo(request, context)

    with caplog.at_level("INFO", "embedfleet.client"), connect(serve({"Embed": answer})) as client:
        client.embed("docs", ["x"], input_type="DOCUMENT")
        client.embed("docs", ["x"], input_type="DOCUMENT")
    (record,) = caplog.records
    assert record.thread == threading.get_ident()
    assert "attempt 1 failed, the next is in 0.1 s: endpoint" in record.getMessage()


@pytest.mark.parametrize("num_texts", [1, 9])
def test_a_call_that_hangs_is_made_again_while_there_is_time(serve, connect, num_texts):
    calls, done = Counter(), threading.Event()

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] == 1:
            done.wait(timeout=20)
        return echo(request, context)

    texts = [str(number) for number in range(num_texts)]
    with connect(serve({"Embed": answer}), config=SMALL) as client:
        found = client.embed("docs", texts, input_type="DOCUMENT", timeout=8.0)
    done.set()
    assert found.vectors.tolist() == [vector_of(text) for text in texts]


def test_what_the_fleet_says_about_a_deadline_ends_the_call(serve, connect):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")

    with connect(serve({"Embed": answer})) as client, pytest.raises(errors.DeadlineExceeded):
        client.embed("docs", ["x"], input_type="DOCUMENT")
    assert calls["all"] == 1


def test_attempts_without_a_hint_end(serve, connect):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        refuse(context, grpc.StatusCode.UNAVAILABLE)

    config = ClientConfig(max_attempts=2)
    with (
        connect(serve({"Embed": answer}), config=config) as client,
        pytest.raises(errors.Unavailable, match="does not answer: no"),
    ):
        client.embed("docs", ["x"], input_type="DOCUMENT")
    assert calls["all"] == 2


@pytest.mark.parametrize("num_texts", [1, 9])
def test_a_passed_deadline_names_the_timeout(serve, connect, num_texts):
    done = threading.Event()

    def answer(request, context):
        done.wait(timeout=20)
        return echo(request, context)

    with (
        connect(serve({"Embed": answer}), config=SMALL) as client,
        pytest.raises(errors.DeadlineExceeded, match=r"timeout is 0\.2 s"),
    ):
        client.embed("docs", ["x"] * num_texts, input_type="DOCUMENT", timeout=0.2)
    done.set()


def one_bad(request, context):
    """Text 'bad' gets an error, named as the server sees it: by place in its own request."""
    response = echo(request, context)
    for i, item in enumerate(request.items):
        if item.text == "bad":
            response.embeddings[i].CopyFrom(
                embedding_pb2.Embedding(
                    error=common_pb2.ItemError(
                        code=3,
                        reason="INVALID_REQUEST",
                        field=f"items[{i}].text",
                        message=f"items[{i}].text has 40,211 tokens; 32,768 are allowed.",
                    )
                )
            )
    return response


def test_an_items_error_is_raised_with_its_place_in_the_whole(serve, connect):
    texts = ["ok"] * 6 + ["bad"] + ["ok"] * 3
    with (
        connect(serve({"Embed": one_bad}), config=SMALL) as client,
        pytest.raises(errors.InvalidRequest) as raised,
    ):
        client.embed("docs", texts, input_type="DOCUMENT")
    assert raised.value.field == "items[6].text"
    assert raised.value.message == "items[6].text has 40,211 tokens; 32,768 are allowed."


def test_kept_errors_leave_the_other_vectors(serve, connect):
    texts = ["ok"] * 6 + ["bad"] + ["ok"] * 3
    with connect(serve({"Embed": one_bad}), config=SMALL) as client:
        found = client.embed("docs", texts, input_type="DOCUMENT", on_item_error="keep")
        streamed = client.embed_stream("docs", texts, input_type="DOCUMENT", on_item_error="keep")
        assert [index for index, _ in streamed] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert {i: type(e) for i, e in found.errors.items()} == {6: errors.InvalidRequest}
    assert np.isnan(found.vectors).all(axis=1).tolist() == [i == 6 for i in range(10)]


def test_a_contract_that_changes_half_way_is_refused(serve, connect):
    def answer(request, context):
        response = echo(request, context)
        if request.items[0].text == "new":
            response.provenance.contract_hash = "c2"
        return response

    texts = ["old"] * 4 + ["new"] * 4
    with connect(serve({"Embed": answer}), config=SMALL) as client:
        with pytest.raises(errors.ContractMismatch, match=r"c1 .* c2"):
            client.embed("docs", texts, input_type="DOCUMENT")
        with pytest.raises(errors.ContractMismatch, match=r"c1 .* c2"):
            list(client.embed_stream("docs", texts, input_type="DOCUMENT"))


def by_length(request, _context):
    """Scores a document by its length; an empty one fails."""
    results = [
        reranking_pb2.RerankResult(index=i, score=len(document) / 100, num_tokens=len(document))
        if document
        else reranking_pb2.RerankResult(
            index=i, error=common_pb2.ItemError(code=3, reason="INVALID_REQUEST", message="empty")
        )
        for i, document in enumerate(request.documents)
    ]
    results.sort(key=lambda result: (result.HasField("error"), -result.score))
    if request.HasField("top_n"):
        results = results[: request.top_n]
    return reranking_pb2.RerankResponse(results=results)


def test_documents_of_several_requests_are_ranked_together(serve, connect):
    documents = ["x" * (i * 7 % 23 + 1) for i in range(23)]
    with connect(serve({"Rerank": by_length}), config=SMALL) as client:
        everything = client.rerank("relevance", "q", documents)
        best = client.rerank("relevance", "q", documents, top_n=3)
    lengths = [len(result.document) for result in everything.results]
    assert lengths == list(range(23, 0, -1))
    assert all(documents[r.index] == r.document for r in everything.results)
    assert [len(result.document) for result in best.results] == [23, 22, 21]


def test_a_failed_document_is_named_or_kept(serve, connect):
    documents = ["aa", "b", "ccc", "dd", "e", ""]
    with connect(serve({"Rerank": by_length}), config=SMALL) as client:
        with pytest.raises(errors.InvalidRequest, match=r"documents\[5\]: empty"):
            client.rerank("relevance", "q", documents)
        kept = client.rerank("relevance", "q", documents, on_item_error="keep")
    assert [result.index for result in kept.results] == [2, 0, 3, 1, 4]
    assert list(kept.errors) == [5]


def test_a_message_over_the_limit_is_refused_before_it_is_sent(serve, connect):
    config = ClientConfig(max_message_bytes=1000)
    with (
        connect(serve({"Embed": echo}), config=config) as client,
        pytest.raises(errors.TooLarge, match=r"larger than max .* Send fewer or shorter items"),
    ):
        client.embed("docs", ["x" * 2000], input_type="DOCUMENT")


def test_nobody_at_the_endpoint_is_said_so(connect):
    config = ClientConfig(max_attempts=2)
    with (
        connect("127.0.0.1:1", config=config) as client,
        pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1 does not answer"),
    ):
        client.models()


def test_a_closed_client_says_so(serve, connect):
    with connect(serve({"Embed": echo})) as client:
        client.embed("docs", ["x"], input_type="DOCUMENT")
        client.close()
        with pytest.raises(errors.Cancelled, match="closed"):
            client.embed("docs", ["x"], input_type="DOCUMENT")


def come_back_later(_request, context):
    refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.6)


def test_a_client_closed_between_two_attempts_says_so(serve):
    with Client(serve({"Embed": come_back_later})) as client:
        closing = threading.Timer(0.2, client.close)
        closing.start()
        with pytest.raises(errors.Cancelled, match="The client is closed"):
            client.embed("docs", ["x"], input_type="DOCUMENT")
        closing.join()


async def test_an_asynchronous_client_closed_between_two_attempts_says_so(serve):
    async with AsyncClient(serve({"Embed": come_back_later})) as client:
        call = asyncio.create_task(client.embed("docs", ["x"], input_type="DOCUMENT"))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(errors.Cancelled, match="The client is closed"):
            await call


def test_one_client_serves_many_threads(serve):
    found = {}
    with Client(serve({"Embed": echo}), config=SMALL) as client:

        def work(name):
            texts = [f"{name} {i}" for i in range(17)]
            found[name] = (texts, client.embed("docs", texts, input_type="DOCUMENT").vectors)

        threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    for texts, vectors in found.values():
        np.testing.assert_array_equal(vectors, [vector_of(text) for text in texts])
