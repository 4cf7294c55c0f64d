"""How an input becomes requests, and how errors find their place in the whole."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet import errors
from embedfleet.client.batches import raise_first, rebase, split
from embedfleet.client.options import RerankKeywords, rerank_options
from embedfleet.client.reranking import RerankWork
from embedfleet.wire import reranking_pb2


@pytest.mark.parametrize(
    ("items", "max_items", "max_bytes", "sizes", "why"),
    [
        ([], 4, 100, [], "nothing to send"),
        (["a"] * 9, 4, 100, [4, 4, 1], "the item limit"),
        (["aaa"] * 5, 4, 7, [2, 2, 1], "the byte limit"),
        (["é" * 3] * 2, 4, 11, [1, 1], "bytes, not characters"),
        (["a" * 500, "b", "c"], 4, 100, [1, 2], "a long one alone"),
        (["a", "b" * 500, "c"], 4, 100, [1, 1, 1], "a long one alone, in its place"),
        ([[1] * 30, [2] * 30, [3]], 4, 100, [1, 2], "three bytes a token id"),
    ],
)
def test_requests_stay_within_both_limits(items, max_items, max_bytes, sizes, why):
    batches = list(split(items, max_items, max_bytes))
    assert [len(batch.items) for batch in batches] == sizes, why


@given(st.lists(st.text(max_size=20)), st.integers(1, 5), st.integers(1, 40))
def test_every_item_is_sent_once_in_order(texts, max_items, max_bytes):
    batches = list(split(texts, max_items, max_bytes))
    assert [item for batch in batches for item in batch.items] == [t.encode() for t in texts]
    starts = itertools.accumulate((len(batch.items) for batch in batches), initial=0)
    assert [batch.start for batch in batches] == list(starts)[:-1]


def test_no_more_is_read_than_the_batch_needs():
    read = []

    def endless():
        for i in itertools.count():
            read.append(i)
            yield str(i)

    next(split(endless(), 3, 100))
    assert read == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("hello", r"texts is one string; pass a list"),
        (b"hello", r"texts is one string; pass a list"),
        ([b"hello"], r"items\[0\] is bytes"),
        (["ok", None], r"items\[1\] is NoneType"),
        ([5], r"items\[0\] is int"),
        ([[1, -2]], r"items\[0\]\.token_ids is not a flat list"),
        ([[1, 2**32]], r"items\[0\]\.token_ids is not a flat list"),
        ([[1.5]], r"items\[0\]\.token_ids is not a flat list"),
        ([[[1], [2]]], r"items\[0\]\.token_ids is not a flat list"),
        ([[[1], [2, 3]]], r"items\[0\]\.token_ids is not a flat list"),
        ([["a"]], r"items\[0\]\.token_ids is not a flat list"),
    ],
)
def test_what_is_no_item_is_refused_by_its_place(items, said):
    with pytest.raises(errors.InvalidRequest, match=said):
        list(split(items, 4, 100))


@pytest.mark.parametrize("ids", [[7, 8], (7, 8), np.array([7, 8], np.uint16), range(7, 9)])
def test_token_ids_of_any_sequence(ids):
    (batch,) = split([ids], 4, 100)
    assert batch.items == [[7, 8]]


def test_a_text_without_utf8_is_left_to_the_server():
    # U+D800 in the form that UTF-8 forbids: the server refuses that item alone.
    (batch,) = split(["\ud800", "fine"], 4, 100)
    assert batch.items == [b"\xed\xa0\x80", b"fine"]


@pytest.mark.parametrize(
    ("field", "message", "start", "place", "words"),
    [
        ("items[1].text", "items[1].text is empty", 4, "items[5].text", "items[5].text is empty"),
        ("documents[0]", "documents[0]: too long", 2, "documents[2]", "documents[2]: too long"),
        ("items[1].text", "is empty", 4, "items[5].text", "is empty"),
        ("dimension", "dimension is 31", 4, "dimension", "dimension is 31"),
        ("items", "items has 9000 items", 4, "items", "items has 9000 items"),
        ("items[1]", "items[1]", 0, "items[1]", "items[1]"),
        ("items[2]", "items[2] and items[21]", 3, "items[5]", "items[5] and items[21]"),
    ],
)
def test_an_error_is_named_by_its_place_in_the_whole(field, message, start, place, words):
    moved = rebase(errors.WrongRole(message, field=field), start)
    assert (type(moved), moved.field, moved.message) == (errors.WrongRole, place, words)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({3: errors.InvalidRequest("items[3].text is empty")}, "items[3].text is empty"),
        ({3: errors.InvalidRequest("is empty")}, "items[3]: is empty"),
        (
            {9: errors.EngineError("later"), 3: errors.InvalidRequest("first")},
            "items[3]: first (1 more failed; on_item_error='keep' returns the others.)",
        ),
    ],
)
def test_the_first_error_is_raised(found, said):
    with pytest.raises(errors.InvalidRequest) as raised:
        raise_first(found, "items")
    assert raised.value.message == said


def test_no_error_raises_nothing():
    raise_first({}, "items")


def answer(request):
    """Rank as a fleet does; a document is its own log-odds, in words."""
    odds = {index: float(text) for index, text in enumerate(request.documents)}
    best = sorted(odds, key=lambda index: -odds[index])
    results = [
        reranking_pb2.RerankResult(
            index=index,
            score=odds[index] if request.raw_scores else 1 / (1 + math.exp(-odds[index])),
        )
        for index in best[: request.top_n if request.HasField("top_n") else None]
    ]
    return reranking_pb2.RerankResponse(results=results)


def ranked(documents, max_items, **keywords):
    options, call = rerank_options(RerankKeywords(**keywords), 1.0)
    work = RerankWork("m", "q", documents, options, call)
    batches = list(split(documents, max_items, 1_000, "documents"))
    return work.join([work.decode(answer(work.encode(each)), each) for each in batches]).results


@pytest.mark.parametrize("raw_scores", [False, True])
@pytest.mark.parametrize("top_n", [None, 1, 3])
@pytest.mark.parametrize("max_items", [2, 9], ids=["several requests", "one request"])
@pytest.mark.parametrize(
    "odds",
    [
        pytest.param([17.5, 18.5, 18.0, 19.0], id="equal in float32 as probabilities"),
        pytest.param([38.0, 45.0, 40.0, 50.0], id="in float64 too"),
        pytest.param([-120.0, -105.0, -110.0, -104.0], id="below the smallest float32"),
        pytest.param([0.0, 2.0, -1.0, 1.0], id="apart"),
    ],
)
def test_a_ranking_of_several_requests_is_by_log_odds(odds, max_items, top_n, raw_scores):
    keywords = {} if top_n is None else {"top_n": top_n}
    found = ranked([str(each) for each in odds], max_items, raw_scores=raw_scores, **keywords)
    best = sorted(odds, reverse=True)[:top_n]
    assert [odds[result.index] for result in found] == best
    wanted = best if raw_scores else [1 / (1 + math.exp(-each)) for each in best]
    assert [result.score for result in found] == pytest.approx(wanted, rel=1e-12)
