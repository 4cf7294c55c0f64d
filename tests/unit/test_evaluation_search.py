"""Search over stored vectors, BM25 and second stages, against loops written from the formulas."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from embedfleet.engine import EngineOptions, load_embedder, load_reranker
from embedfleet.errors import InvalidRequest
from embedfleet.evaluation.encoding import SecondStage, embed_documents, embed_queries, rerank
from embedfleet.evaluation.lexical import Lexical, describe
from embedfleet.evaluation.ranking import NOTHING, Ranking, best
from embedfleet.evaluation.variants import (
    OUTPUT_TYPES,
    Index,
    Variant,
    dimensions_of,
    stored,
    variants_of,
)

OPTIONS = EngineOptions(device="cpu", dtype="float32", num_threads=1)
NOBODY = [NOTHING] * 6


def vectors(count: int, seed: int, native: int = 64) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, native)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def cut(row: np.ndarray, dimension: int) -> np.ndarray:
    part = row[:dimension].astype(np.float64)
    return part / math.sqrt(sum(x * x for x in part))


def kept(row: np.ndarray, dimension: int, kind: str) -> np.ndarray:
    """Decode what an index would hold of a document, from the definition of its type."""
    part = cut(row, dimension)
    if kind == "FLOAT16":
        return part.astype(np.float16).astype(np.float64)
    if kind in ("INT8", "BINARY+INT8"):
        scale = max(abs(part))
        return np.array([round(127 * x / scale) for x in part]) * scale / 127
    return np.where(part > 0, 1.0, -1.0) if kind == "BINARY" else part


@pytest.mark.parametrize("dimension", [32, 64])
@pytest.mark.parametrize("kind", OUTPUT_TYPES)
def test_search_is_that_of_a_loop_over_what_is_stored(kind: str, dimension: int) -> None:
    documents, queries = vectors(50, 1), vectors(6, 2)
    found = Index.build(documents, Variant(dimension, kind)).search(queries, 10, NOBODY)
    for row, query in enumerate(queries):
        asked = cut(query, dimension)
        scores = [float(asked @ kept(each, dimension, kind)) for each in documents]
        expected = sorted(range(50), key=lambda place: -scores[place])
        if kind.startswith("BINARY"):  # 40 of 50 by Hamming distance first
            bits = [int(((d[:dimension] > 0) != (query[:dimension] > 0)).sum()) for d in documents]
            near = sorted(range(50), key=lambda place: (bits[place], place))[:40]
            expected = [place for place in expected if place in near]
        np.testing.assert_allclose(
            found.scores[row], [scores[place] for place in expected[:10]], atol=2e-3
        )
        agreed = len(set(found.places[row].tolist()) & set(expected[:10]))
        assert agreed >= 9  # rounding may swap the last one


@pytest.mark.parametrize("k", [1, 7, 50, 299, 300, 400])
def test_of_equal_documents_the_first_are_found(k: int) -> None:
    # Five values among 300 documents: the cut falls among equals.
    scores = np.random.default_rng(0).integers(0, 5, (40, 300)).astype(np.float32)
    scores[:, ::3] = -np.inf
    found = best(scores, k)
    for row, places in zip(scores, found.places.tolist(), strict=True):
        there = [place for place in range(300) if row[place] > -np.inf]
        expected = sorted(there, key=lambda place: -row[place])[:k]  # sorted keeps their order
        assert places[: len(expected)] == expected
        assert set(places[len(expected) :]) <= {NOTHING}


@pytest.mark.parametrize(
    ("kind", "num_bytes"),
    [("FLOAT32", 128), ("FLOAT16", 64), ("INT8", 36), ("BINARY", 4), ("BINARY+INT8", 40)],
)
def test_bytes_of_one_vector(kind: str, num_bytes: int) -> None:
    # INT8 keeps a float32 scale beside 32 components.
    assert Index.build(vectors(3, 1), Variant(32, kind)).bytes_per_vector == num_bytes
    assert stored(vectors(3, 1), Variant(32, kind))[1] == num_bytes


@pytest.mark.parametrize("kind", OUTPUT_TYPES)
def test_a_query_never_finds_itself(kind: str) -> None:
    documents = vectors(8, 3)
    found = Index.build(documents, Variant(64, kind)).search(documents[:3], 8, [0, 1, 2])
    for row in range(3):
        assert row not in found.places[row]
        assert found.places[row].tolist().count(NOTHING) == 1


@pytest.mark.parametrize(
    ("native", "expected"),
    [(128, (32, 64, 128)), (96, (32, 64, 96)), (32, (32,)), (16, (16,)), (150, (32, 64, 128, 150))],
)
def test_dimensions_double_up_to_the_native_one(native: int, expected: tuple[int, ...]) -> None:
    assert dimensions_of(native) == expected


def test_whole_vectors_come_first_and_each_variant_once() -> None:
    found = variants_of(64, (64, 32), ("INT8", "FLOAT32"))
    assert found == [Variant(64), Variant(64, "INT8"), Variant(32, "INT8"), Variant(32)]
    # Of dimensions that were not asked for, those that fill no whole bytes have no bits.
    assert Variant(300, "BINARY") not in variants_of(300, None, OUTPUT_TYPES)


@pytest.mark.parametrize(
    ("dimension", "said"), [(65, "gives 32 to 64"), (8, "gives 32 to 64"), (36, "multiple of 8")]
)
def test_a_dimension_that_cannot_be_is_refused(dimension: int, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        variants_of(64, (dimension,), ("BINARY",))


TEXTS = [
    "The tidal mill works without a river", "Mills grind corn and wheat", "A river floods the town",
    "corn corn corn", "the of and", "Wheat prices rise, and corn prices fall",
]  # fmt: skip


def lucene(query: str, documents: list[str]) -> list[float]:
    """Score by BM25 as Lucene has it: idf of at least 0, k1 1.5, b 0.75."""
    stop = {"the", "of", "and", "a"}
    words = [[w for w in re.findall(r"\b\w\w+\b", d.lower()) if w not in stop] for d in documents]
    lengths = [len(each) for each in words]
    mean = sum(lengths) / len(lengths)
    asked = [w for w in re.findall(r"\b\w\w+\b", query.lower()) if w not in stop]
    scores = []
    for each, length in zip(words, lengths, strict=True):
        counts, score = Counter(each), 0.0
        for word in asked:
            holding = sum(word in other for other in words)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            norm = 1.5 * (1 - 0.75 + 0.75 * length / mean)
            score += idf * counts[word] / (counts[word] + norm)
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["corn prices", "tidal river mill", "corn", "wheat wheat corn"])
def test_the_baseline_is_bm25(query: str) -> None:
    if "PyStemmer" in describe() and "no stemming" not in describe():
        pytest.skip("stems are cut here")
    expected = lucene(query, TEXTS)
    found = Lexical.search(TEXTS, [query], 4, [NOTHING]).ranking
    order = sorted(range(len(TEXTS)), key=lambda place: (-expected[place], place))
    order = [place for place in order if expected[place] > 0][:4]
    assert [place for place in found.places[0] if place != NOTHING] == order
    np.testing.assert_allclose(
        found.scores[0][: len(order)], [expected[place] for place in order], rtol=1e-5
    )


@pytest.mark.parametrize("query", ["the", "zebra", "of the and"])
def test_a_query_of_no_known_word_finds_nothing(query: str) -> None:
    assert set(Lexical.search(TEXTS, [query], 4, [NOTHING]).ranking.places[0]) == {NOTHING}


def test_the_baseline_does_not_find_the_query_itself() -> None:
    assert 3 not in Lexical.search(TEXTS, [TEXTS[3]], 4, [3]).ranking.places[0]


def test_what_is_cut_is_counted_and_ends_like_a_shorter_text() -> None:
    with load_embedder("embedded/embedder", options=OPTIONS) as embedder:
        short, long = "one two three four five", "one two three four five six seven eight " * 9
        limit = len(embedder.tokenizer.tokenizer.encode(short)) + 1
        whole = embed_documents(embedder, [short, long])
        found = embed_documents(embedder, [short, long], limit)
        alone = embedder.embed([short], "DOCUMENT")
    assert (whole.num_truncated, found.num_truncated, found.num_tokens) == (0, 1, 2 * limit)
    np.testing.assert_allclose(found.vectors, np.repeat(alone, 2, axis=0), atol=1e-5)
    assert abs(whole.vectors[1] - found.vectors[1]).max() > 1e-3


def test_without_instruction_a_query_stands_bare() -> None:
    with load_embedder("embedded/embedder", options=OPTIONS) as embedder:
        bare = embed_queries(embedder, ["what is it"], None).vectors
        asked = embed_queries(embedder, ["what is it"], "Find it").vectors
        np.testing.assert_allclose(bare, embedder.embed(["what is it"], "DOCUMENT"), atol=1e-6)
        np.testing.assert_allclose(
            asked, embedder.embed(["what is it"], "QUERY", instruction="Find it"), atol=1e-6
        )


def test_a_second_stage_orders_by_its_scores_and_keeps_the_rest_behind() -> None:
    queries = ["corn", "river"]
    first = Ranking(
        np.array([[3, 1, 5, 0, 2], [2, 0, NOTHING, NOTHING, NOTHING]]),
        np.array([[5, 4, 3, 2, 1], [2, 1, 0, 0, 0]], np.float32),
    )
    with load_reranker("embedded/reranker", options=OPTIONS) as reranker:
        found = rerank(reranker, (queries, TEXTS), first, SecondStage(3))
        for row, depth in ((0, 3), (1, 2)):
            some = first.places[row][:depth]
            scores = reranker.score(queries[row], [TEXTS[place] for place in some])
            expected = [int(some[at]) for at in np.argsort(-scores)]
            assert found.ranking.places[row][:depth].tolist() == expected
        cut_to = rerank(reranker, (queries, TEXTS), first, SecondStage(3, max_document_tokens=2))
    assert found.ranking.places[0][3:].tolist() == [0, 2]
    assert set(found.ranking.places[1][2:]) == {NOTHING}
    assert (found.num_pairs, found.num_truncated) == (5, 0)
    assert cut_to.num_truncated == 5
    assert (np.diff(found.ranking.scores[0]) < 0).all()
