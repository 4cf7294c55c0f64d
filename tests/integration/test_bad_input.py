"""What each bad request gets: the right code, a message that says what to do, and no harm done.

Bytes that no client library would send are made with the wire twins, in which text is bytes.
"""

import grpc
import pytest
from fleet_calls import TIMEOUT_SECONDS, ids, pairs, texts

from embedfleet.v1 import embedding_pb2, model_pb2
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

EMBED, RERANK, TOKENIZE = (
    "EmbeddingService/Embed",
    "RerankingService/Rerank",
    "ModelService/Tokenize",
)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
INVALID_ARGUMENT = 3
ENOUGH_TOO_MUCH = 2049
LONG = "word " * 1500
NOT_UTF8 = b"good until \xff"
MEBIBYTE = 2**20
MAX_GROWTH_BYTES = 128 * MEBIBYTE
"""For a replica, over all of this file: a leak of one large request would be more."""


def tokenize(*values, model="docs", **options):
    return model_pb2.TokenizeRequest(model=model, texts=values, **options)


def embed_bytes(**fields):
    given = {"model": b"docs", "input_type": 2, "items": [wire_embedding.EmbedItem(text=b"a")]}
    return wire_embedding.EmbedRequest(**(given | fields)).SerializeToString()


def rerank_bytes(**fields):
    given = {"model": b"relevance", "query": b"q", "documents": [b"a"]}
    return wire_reranking.RerankRequest(**(given | fields)).SerializeToString()


REFUSED = {
    # How many.
    "no-items": (EMBED, texts("docs"), INVALID, "items", "0 entries", "1 to 2,048", "at least one"),
    "too-many-items": (
        EMBED, texts("docs", *["a"] * ENOUGH_TOO_MUCH), INVALID, "items", "2,049", "2,048", "Split",
    ),
    "no-documents": (RERANK, pairs("relevance", "q"), INVALID, "documents", "0 entries"),
    "too-many-documents": (
        RERANK, pairs("relevance", "q", *["a"] * ENOUGH_TOO_MUCH), INVALID,
        "documents", "2,049", "2,048", "Split",
    ),
    "no-texts": (TOKENIZE, tokenize(input_type="QUERY"), INVALID, "texts", "0 entries", "at least"),
    # Which model.
    "unknown-model": (EMBED, texts("dogs", "a"), NOT_FOUND, "model", "'dogs'", "docs (embedder)"),
    "endless-model": (EMBED, texts("d" * 1_000_000, "a"), NOT_FOUND, "model", "'dddd"),
    "no-model": (EMBED, texts("", "a"), INVALID, "model", "empty", "relevance (reranker)"),
    "model-not-utf8": (
        EMBED, embed_bytes(model=NOT_UTF8), INVALID, "model", "0xff", "position 11", "UTF-8",
    ),
    "embed-a-reranker": (
        EMBED, texts("relevance", "a"), INVALID, "model", "'relevance'", "RerankingService.Rerank",
    ),
    "rerank-an-embedder": (
        RERANK, pairs("docs", "q", "a"), INVALID, "model", "'docs'", "EmbeddingService.Embed",
    ),
    # Numbers out of range. A negative uint32 is a large one.
    "dimension-0": (EMBED, texts("docs", "a", dimension=0), INVALID, "dimension", "0", "32 to 256"),
    "dimension-31": (EMBED, texts("docs", "a", dimension=31), INVALID, "dimension", "31", "32 to"),
    "dimension-above": (
        EMBED, texts("docs", "a", dimension=257), INVALID, "dimension", "257", "32 to 256",
    ),
    "dimension-negative": (
        EMBED, embed_bytes() + b"\x28" + b"\xff" * 9 + b"\x01", INVALID,
        "dimension", "4294967295", "32 to 256",
    ),
    "dimension-of-bits": (
        EMBED, texts("docs", "a", dimension=100, output_type="BINARY"), INVALID,
        "dimension", "100", "multiple of 8", "96",
    ),
    "top-0": (
        RERANK, pairs("relevance", "q", "a", top_n=0), INVALID, "top_n", "0", "at least 1",
    ),
    "documents-of-0-tokens": (
        RERANK, pairs("relevance", "q", "a", max_tokens_per_document=0), INVALID,
        "max_tokens_per_document", "0", "at least 1",
    ),
    # Choices that nobody knows.
    "input-type-unset": (
        EMBED, texts("docs", "a", input_type=0), INVALID, "input_type", "not set", "QUERY (1)",
    ),
    "input-type": (
        EMBED, texts("docs", "a", input_type=99), INVALID, "input_type", "99", "DOCUMENT (2)",
    ),
    "input-type-negative": (
        EMBED, texts("docs", "a", input_type=-1), INVALID, "input_type", "-1", "QUERY (1)",
    ),
    "output-type": (
        EMBED, texts("docs", "a", output_type=7), INVALID, "output_type", "7", "UBINARY (6)",
    ),
    "truncation": (EMBED, texts("docs", "a", truncation=4), INVALID, "truncation", "4", "END (2)"),
    "priority": (EMBED, texts("docs", "a", priority=3), INVALID, "priority", "3", "BULK (2)"),
    "rerank-truncation": (
        RERANK, pairs("relevance", "q", "a", truncation=4), INVALID, "truncation", "4", "START (3)",
    ),
    "rerank-priority": (
        RERANK, pairs("relevance", "q", "a", priority=3), INVALID, "priority", "3", "BULK (2)",
    ),
    "tokenize-input-type": (
        TOKENIZE, tokenize("a", input_type=9), INVALID, "input_type", "9", "QUERY (1)",
    ),
    "tokenize-input-type-unset": (
        TOKENIZE, tokenize("a"), INVALID, "input_type", "not set", "QUERY or DOCUMENT",
    ),
    "tokenize-truncation": (
        TOKENIZE, tokenize("a", input_type=1, truncation=9), INVALID, "truncation", "9", "END (2)",
    ),
    # Text for all items.
    "document-with-instruction": (
        EMBED, texts("docs", "a", instruction="find"), INVALID, "instruction", "DOCUMENT", "QUERY",
    ),
    "empty-instruction": (
        EMBED, texts("docs", "a", instruction=" ", input_type="QUERY"), INVALID,
        "instruction", "' '", "Leave it out",
    ),
    "long-instruction": (
        EMBED, texts("docs", "a", instruction=LONG, input_type="QUERY"), INVALID,
        "instruction", "tokens", "1000", "Shorten",
    ),
    "instruction-not-utf8": (
        EMBED, embed_bytes(input_type=1, instruction=NOT_UTF8), INVALID,
        "instruction", "0xff", "UTF-8",
    ),
    "contract-not-utf8": (
        EMBED, embed_bytes(expected_contract_hash=NOT_UTF8), INVALID,
        "expected_contract_hash", "0xff", "UTF-8",
    ),
    "empty-query": (RERANK, pairs("relevance", "", "a"), INVALID, "query", "''", "searched for"),
    "long-query": (
        RERANK, pairs("relevance", LONG, "a"), INVALID, "query", "tokens", "1,000", "Shorten",
    ),
    "query-not-utf8": (RERANK, rerank_bytes(query=NOT_UTF8), INVALID, "query", "0xff", "UTF-8"),
    "rerank-instruction-not-utf8": (
        RERANK, rerank_bytes(instruction=NOT_UTF8), INVALID, "instruction", "0xff", "UTF-8",
    ),
    "tokenize-not-utf8": (
        TOKENIZE,
        wire_model.TokenizeRequest(model=b"docs", texts=[b"a", NOT_UTF8], input_type=1),
        INVALID, "texts[1]", "0xff", "UTF-8",
    ),
    # No message at all.
    "garbage": (EMBED, b"\xff" * 64, INVALID, "", "EmbedRequest", "proto files"),
    "cut-short": (EMBED, embed_bytes()[:-1], INVALID, "", "EmbedRequest", "proto files"),
    "garbage-for-a-model": (
        RERANK, rerank_bytes() + b"\x0f\xff\xff", INVALID, "", "RerankRequest", "proto files",
    ),
    "nothing": (EMBED, b"", INVALID, "model", "empty", "docs (embedder)"),
}  # fmt: skip


def good(caller):
    assert len(caller.call(EMBED, texts("docs", "a")).embeddings[0].values) == 256
    assert len(caller.call(RERANK, pairs("relevance", "q", "a")).results) == 1


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("case", REFUSED)
def test_request_is_refused(caller, case):
    method, request, code, field, *fragments = REFUSED[case]
    refused = caller.refusal(method, request)
    assert (refused.code, refused.field) == (code, field), refused
    for fragment in (field, *fragments):
        assert fragment in refused.message
    assert refused.retry_seconds is None
    good(caller)


@pytest.mark.parametrize("case", ["unknown-model", "dimension-31", "input-type", "long-query"])
def test_compressed_request_is_refused_alike(caller, case):
    method, request, *_ = REFUSED[case]
    plainly = caller.refusal(method, request)
    assert caller.refusal(method, request, compression=grpc.Compression.Gzip) == plainly


GOOD = embedding_pb2.EmbedItem(text="a")
BAD_ITEMS = {
    "empty": (texts("docs", "").items[0], "items[1].text", "empty", "Send some text"),
    "unset": (embedding_pb2.EmbedItem(), "items[1]", "neither text nor token_ids", "Set one"),
    "endless": (texts("docs", "x" * 4_200_000).items[0], "items[1].text", "4,200,000", "Cut it"),
    "too-long": (texts("docs", LONG).items[0], "items[1].text", "1,000", "truncation", "shorten"),
    "no-ids": (ids("docs", []).items[0], "items[1].token_ids", "empty", "at least one"),
    "id-above": (ids("docs", [5, 10_266]).items[0], "items[1].token_ids", "[1] is 10266", "0 to "),
    "id-far-above": (ids("docs", [2**32 - 1]).items[0], "items[1].token_ids", "4294967295", "0 to"),
    "id-special": (
        # <|im_end|> of the embedded models.
        ids("docs", [5, 10_242]).items[0], "items[1].token_ids", "[1] is 10242", "special token",
    ),
    "too-many-ids": (
        ids("docs", [5] * 1000).items[0], "items[1].token_ids", "1,001 tokens", "1,000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_item_leaves_its_neighbours_alone(caller, case):
    item, field, *fragments = BAD_ITEMS[case]
    request = texts("docs")
    request.items.extend([GOOD, item, GOOD])
    response = caller.call(EMBED, request)
    first, bad, last = response.embeddings
    assert (bad.error.code, bad.error.field) == (INVALID_ARGUMENT, field), bad
    for fragment in (field, *fragments):
        assert fragment in bad.error.message
    assert (len(bad.values), bad.num_tokens) == (0, 0)
    assert (response.usage.num_items, response.usage.num_failed) == (3, 1)
    assert len(first.values) == 256
    assert first == last


def test_text_that_is_not_utf8_is_its_items_fault(caller):
    items = [wire_embedding.EmbedItem(text=text) for text in (b"a", NOT_UTF8, b"\xed\xa0\x80")]
    response = caller.call(EMBED, embed_bytes(items=items))
    good_one, broken, surrogate = response.embeddings
    assert len(good_one.values) == 256
    for each, field in ((broken, "items[1].text"), (surrogate, "items[2].text")):
        assert (each.error.code, each.error.field) == (INVALID_ARGUMENT, field)
        assert "UTF-8" in each.error.message
    assert "byte 0xff at position 11" in broken.error.message


def test_only_bad_items_are_still_an_answer(caller):
    response = caller.call(EMBED, texts("docs", "", ""))
    assert [each.error.field for each in response.embeddings] == ["items[0].text", "items[1].text"]
    assert response.usage.num_failed == 2


def test_bad_document_comes_last_and_leaves_the_others_alone(caller):
    documents = [b"", b"a", NOT_UTF8, b"b", LONG.encode()]
    response = caller.call(RERANK, rerank_bytes(documents=documents))
    assert [result.index for result in response.results[2:]] == [0, 2, 4]
    errors = {result.index: result.error for result in response.results[2:]}
    for index, fragments in {0: ["empty"], 2: ["UTF-8"], 4: ["1,000", "truncation"]}.items():
        assert errors[index].field == f"documents[{index}]"
        assert errors[index].code == INVALID_ARGUMENT
        for fragment in fragments:
            assert fragment in errors[index].message
    assert response.usage.num_failed == 3
    alone = {
        r.index: r.score for r in caller.call(RERANK, pairs("relevance", "q", "a", "b")).results
    }
    found = {result.index: result.score for result in response.results[:2]}
    assert found[1] == pytest.approx(alone[0], abs=1e-5)
    assert found[3] == pytest.approx(alone[1], abs=1e-5)


def test_bad_text_to_tokenize_leaves_its_neighbours_alone(caller):
    response = caller.call(TOKENIZE, tokenize("a", LONG, "b", input_type="DOCUMENT"))
    assert [bool(text.ids) for text in response.texts] == [True, False, True]
    assert response.texts[1].error.code == INVALID_ARGUMENT


@pytest.mark.parametrize("seconds", [0.000001, 0.001])
def test_deadline_that_is_past_is_said_so(caller, seconds):
    refused = caller.refusal(EMBED, texts("docs", *["a"] * 500), timeout=seconds)
    assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
    good(caller)


def test_number_of_another_kind_is_no_option(caller):
    # NaN as a fixed32 in the place of `dimension`: an unknown field, as protobuf has it.
    request = embed_bytes() + b"\x2d\x00\x00\xc0\x7f"
    assert caller.call(EMBED, request, timeout=TIMEOUT_SECONDS).dimension == 256


def test_replicas_are_the_same_and_no_larger(witness):
    assert max(witness.growth().values()) < MAX_GROWTH_BYTES
