"""Which documents become hard negatives: tables of similarities and what must come of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.negatives import Candidates, MiningSettings, Order, candidates, row_blocks

# One query against eight documents; document 0 is its positive, with 0.80.
ROW = [0.80, 0.95, 0.78, 0.60, 0.76, 0.10, 0.60, -0.30]


def chosen(settings: MiningSettings, row: Any = None, excluded: Any = (0,)) -> Candidates:
    given = np.array([ROW if row is None else row], np.float32)
    (found,) = candidates(given, [excluded], np.array([0.80], np.float32), settings)
    return found


@pytest.mark.parametrize(
    ("settings", "places", "near", "similar"),
    [
        # 0.95 and 0.78, 0.76 are not below 0.75; of equals the first comes first.
        ({}, [3, 6, 5, 7], 3, 0),
        # The margin of the loss: up to 0.1 above the positive passes.
        ({"margin": -0.1}, [2, 4, 3, 6, 5, 7], 1, 0),
        # Exactly at the bound passes: 0.80 - 0.04 is 0.76 to the last bit of float32 or above.
        ({"margin": 0.03}, [4, 3, 6, 5, 7], 2, 0),
        ({"margin": 0.5}, [5, 7], 5, 0),
        ({"margin": 2}, [], 7, 0),
        ({"margin": -2}, [1, 2, 4, 3, 6, 5, 7], 0, 0),
        ({"margin": -2, "max_similarity": 0.7}, [3, 6, 5, 7], 0, 3),
        # What both filters refuse counts for the first.
        ({"max_similarity": 0.5}, [5, 7], 3, 2),
        # Ranks count what is no positive: 1, 2, 4, 3, 6, 5, 7.
        ({"top_k": 4}, [3], 3, 0),
        ({"top_k": 5, "skip_top": 4}, [6], 0, 0),
        ({"skip_top": 2}, [3, 6, 5, 7], 1, 0),
        ({"skip_top": 7}, [], 0, 0),
    ],
)
def test_what_passes(settings: Any, places: list[int], near: int, similar: int) -> None:
    found = chosen(MiningSettings(**settings))
    assert found.places.tolist() == places
    assert (found.too_near_positive, found.too_similar) == (near, similar)


@pytest.mark.parametrize(
    ("excluded", "places"),
    [([0, 3], [6, 5, 7]), ([], [3, 6, 5, 7]), (list(range(8)), [])],
)
def test_what_is_excluded_is_no_candidate(excluded: list[int], places: list[int]) -> None:
    assert chosen(MiningSettings(), excluded=excluded).places.tolist() == places


def test_equals_at_the_last_rank_are_taken_in_their_order() -> None:
    row = [0.8, 0.1, 0.5, 0.3, 0.3, 0.3, 0.3, 0.0]
    for count, places in (
        (2, [2, 3]),
        (3, [2, 3, 4]),
        (5, [2, 3, 4, 5, 6]),
        (6, [2, 3, 4, 5, 6, 1]),
    ):
        assert chosen(MiningSettings(top_k=count), row).places.tolist() == places


def test_ranks_are_those_of_a_sort() -> None:
    random = np.random.default_rng(0)
    given = (random.integers(-9, 9, (40, 60)) / 10).astype(np.float32)  # many equals
    excluded = [random.choice(60, 5, replace=False).tolist() for _ in range(40)]
    positives = np.full(40, 0.5, np.float32)
    settings = MiningSettings(top_k=20, skip_top=3, margin=0.2)
    found = list(candidates(given.copy(), excluded, positives, settings))
    for row, each in enumerate(found):
        left = [place for place in range(60) if place not in excluded[row]]
        ranked = sorted(left, key=lambda place, row=row: (-given[row, place], place))[3:20]
        expected = [place for place in ranked if given[row, place] <= np.float32(0.5) - 0.2]
        assert each.places.tolist() == expected
        assert each.too_near_positive == len(ranked) - len(expected)


def test_a_random_order_is_the_seeds_alone() -> None:
    given = np.tile(np.linspace(0, 0.5, 30, dtype=np.float32), (6, 1))
    positives = np.full(6, 0.9, np.float32)

    def orders(seed: int, blocks: list[slice]) -> list[list[int]]:
        settings = MiningSettings(order=Order.RANDOM, seed=seed)
        return [
            each.places.tolist()
            for block in blocks
            for each in candidates(
                given[block].copy(), [[]] * len(given[block]), positives[block], settings,
                block.start,
            )
        ]  # fmt: skip

    whole = orders(1, [slice(0, 6)])
    assert whole == orders(1, [slice(0, 2), slice(2, 5), slice(5, 6)])
    assert whole != orders(2, [slice(0, 6)])
    assert len({tuple(each) for each in whole}) == 6  # each query has its own
    assert all(sorted(each) == list(range(30)) for each in whole)


@pytest.mark.parametrize(
    ("queries", "documents", "expected"),
    [
        (10, 100, [(0, 10)]),
        (5, 1 << 23, [(0, 2), (2, 4), (4, 5)]),
        (2, 1 << 25, [(0, 1), (1, 2)]),  # never less than one
        (0, 5, []),
        (3, 0, [(0, 3)]),
    ],
)
def test_blocks_bound_memory(queries: int, documents: int, expected: Any) -> None:
    assert [(b.start, b.stop) for b in row_blocks(queries, documents)] == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"negatives": 0}, "negatives is 0; it must be at least 1"),
        ({"margin": 2.5}, "margin is 2.5; it must be between -2 and 2"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"max_similarity": 1.5}, "max_similarity is 1.5; it must be between -1 and 1"),
        ({"skip_top": -1}, "skip_top is -1"),
        ({"top_k": 5, "skip_top": 5}, "top_k is 5; it must be above skip_top, 5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range(settings: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        MiningSettings(**settings)
