"""Measures of rankings against their formulas written as slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.measures import MEASURES, measure
from embedfleet.evaluation.ranking import NOTHING, Ranking, best, blocks


def dataset(relevance: dict[str, dict[str, int]], num_documents: int) -> RetrievalDataset:
    names = tuple(f"d{place}" for place in range(num_documents))
    return RetrievalDataset(
        "x", "test", names, names, tuple(relevance), tuple(relevance), relevance
    )


def by_hand(found: list[str], judged: dict[str, int]) -> tuple[float, float, float, float]:
    """Compute nDCG@10, MRR@10, recall@10 and recall@100 of documents in order (trec_eval's)."""
    gain = sum(judged.get(name, 0) / math.log2(at + 2) for at, name in enumerate(found[:10]))
    ideal = sorted((level for level in judged.values() if level > 0), reverse=True)[:10]
    best_gain = sum(level / math.log2(at + 2) for at, level in enumerate(ideal))
    first = next((at + 1 for at, name in enumerate(found[:10]) if judged.get(name, 0) > 0), None)
    relevant = {name for name, level in judged.items() if level > 0}
    recalls = (len(relevant.intersection(found[:cut])) / len(relevant) for cut in (10, 100))
    return (gain / best_gain, 1 / first if first else 0.0, *recalls)


@pytest.mark.parametrize("seed", range(4))
def test_random_rankings_equal_the_formulas(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_documents, relevance, places = 300, {}, []
    for query in range(12):
        judged = random.choice(num_documents, 30, replace=False)
        levels = random.integers(0, 4, 30)
        levels[0] = 1
        relevance[f"q{query}"] = {
            f"d{d}": int(level) for d, level in zip(judged, levels, strict=True)
        }
        places.append(random.permutation(num_documents)[:150])
    data = dataset(relevance, num_documents)
    scores = np.sort(random.random((12, 150)), axis=1)[:, ::-1].astype(np.float32)
    found = measure(data, Ranking(np.array(places), scores))
    expected = [
        by_hand([f"d{place}" for place in row], relevance[query])
        for row, query in zip(places, data.query_ids, strict=True)
    ]
    assert MEASURES == ("ndcg@10", "mrr@10", "recall@10", "recall@100")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_of_equal_scores_the_greater_id_comes_first() -> None:
    # trec_eval sorts ties by document id, descending as text: d9 before d10 before d1.
    ranking = Ranking(np.array([[1, 9, 10]]), np.ones((1, 3), np.float32))
    for name, place in (("d9", 1), ("d10", 2), ("d1", 3)):
        found = measure(dataset({"q": {name: 1}}, 11), ranking)
        assert found[0, MEASURES.index("mrr@10")] == pytest.approx(1 / place)


@pytest.mark.parametrize(("place", "expected"), [(0, 1.0), (9, 0.1), (10, 0.0), (60, 0.0)])
def test_the_reciprocal_rank_ends_at_ten(place: int, expected: float) -> None:
    ranking = Ranking(np.arange(100)[None, :], np.arange(100, 0, -1, dtype=np.float32)[None, :])
    found = measure(dataset({"q": {f"d{place}": 1}}, 100), ranking)
    assert found[0, 1] == pytest.approx(expected)
    assert found[0, 3] == 1.0


def test_what_found_nothing_scores_zero_and_keeps_its_row() -> None:
    data = dataset({"q1": {"d1": 1}, "q2": {"d2": 1}}, 3)
    places = np.array([[NOTHING, NOTHING], [2, NOTHING]])
    found = measure(data, Ranking(places, np.array([[0, 0], [1, 0]], np.float32)))
    np.testing.assert_allclose(found, [[0, 0, 0, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize("k", [1, 3, 7, 50])
def test_the_best_are_those_of_a_full_sort(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 9, (5, 20)).astype(np.float32)
    found = best(scores, k)
    for row, places in enumerate(found.places):
        full = sorted(range(20), key=lambda place: -scores[row, place])
        assert [scores[row, place] for place in places] == [scores[row, p] for p in full[:k]]
        assert len(set(places.tolist())) == min(k, 20)
        assert found.scores[row].tolist() == [scores[row, place] for place in places]


def test_what_must_not_be_found_is_nothing() -> None:
    found = best(np.array([[1, -np.inf, 3]], np.float32), 3)
    assert found.places.tolist() == [[2, 0, NOTHING]]


def test_blocks_cover_every_query_once() -> None:
    for num_queries, num_documents in ((0, 5), (1, 1), (1000, 3_000_000), (77, 400_000)):
        rows = [
            row for block in blocks(num_queries, num_documents) for row in range(num_queries)[block]
        ]
        assert rows == list(range(num_queries))
