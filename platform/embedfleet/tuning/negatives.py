"""Which of the documents near a query are its hard negatives: a function of similarities.

A document that looks like an answer and is none teaches most; one that is an answer, and only not
marked as one, teaches the wrong thing. What tells them apart here is how near they are compared
with the marked answer. Knows no texts and no models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.errors import InvalidRequest
from embedfleet.messages import Float32Array
from embedfleet.topk import top_places

__all__ = ["Candidates", "MiningSettings", "Order", "candidates", "row_blocks"]

Places = npt.NDArray[np.int64]

_BLOCK_SIMILARITIES: Final = 1 << 24
"""Held at once: 64 MiB of float32."""


class Order(StrEnum):
    """Which of the documents that pass are taken first."""

    HARDEST = "hardest"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """What makes a hard negative.

    Attributes:
        negatives: So many for each query, at most.
        margin: It is less similar to the query than every positive, by at least so much.
        max_similarity: It is not more similar than this, whatever the positives are. None: any.
        skip_top: The nearest so many are passed over, positives not counted.
        top_k: It is among the nearest so many, positives not counted.
        order: Which are taken where more pass.
        seed: Decides a random order.

    Raises:
        InvalidRequest: A value is out of its range.
    """

    negatives: int = 7
    margin: float = 0.05
    max_similarity: float | None = None
    skip_top: int = 0
    top_k: int = 100
    order: Order = Order.HARDEST
    seed: int = 0

    def __post_init__(self) -> None:
        most = 1.0 if self.max_similarity is None else self.max_similarity
        checks: list[tuple[str, float, bool, str]] = [
            ("negatives", self.negatives, self.negatives >= 1, "at least 1"),
            ("margin", self.margin, -2 <= self.margin <= 2, "between -2 and 2"),
            ("max_similarity", most, -1 <= most <= 1, "between -1 and 1"),
            ("skip_top", self.skip_top, self.skip_top >= 0, "at least 0"),
            ("top_k", self.top_k, self.top_k > self.skip_top, f"above skip_top, {self.skip_top}"),
            ("seed", self.seed, self.seed >= 0, "at least 0"),
        ]
        for name, value, good, limit in checks:
            if not good:
                raise InvalidRequest(f"{name} is {value:g}; it must be {limit}.", field=name)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Documents that pass for one query, in the order in which they are taken.

    Attributes:
        places: (n,) int64.
        too_near_positive: How many of the ranks asked for were not below the margin.
        too_similar: How many others were above `max_similarity`.
    """

    places: Places
    too_near_positive: int
    too_similar: int


def candidates(
    similarities: Float32Array,
    excluded: Sequence[Sequence[int]],
    positives: Float32Array,
    settings: MiningSettings,
    first_query: int = 0,
) -> Iterator[Candidates]:
    """Choose documents for each query of a block.

    Args:
        similarities: (q, d) cosines; written to.
        excluded: For each query, the documents that are no candidates: its positives, itself.
        positives: (q,) cosine of the least similar positive.
        settings: What makes a hard negative.
        first_query: Number of the block's first query, so that a random order does not depend on
            the blocks.
    """
    for row, places in enumerate(excluded):
        similarities[row, list(places)] = -np.inf
    top = top_places(similarities, settings.top_k)[:, settings.skip_top :]
    found = np.take_along_axis(similarities, top, 1)
    for row in range(len(top)):
        there = np.isfinite(found[row])
        near = there & (found[row] > positives[row] - settings.margin)
        similar = np.zeros_like(near)
        if settings.max_similarity is not None:
            similar = there & ~near & (found[row] > settings.max_similarity)
        passed = top[row][there & ~near & ~similar]
        if settings.order is Order.RANDOM:
            passed = np.random.default_rng([settings.seed, first_query + row]).permutation(passed)
        yield Candidates(passed, int(near.sum()), int(similar.sum()))


def row_blocks(num_queries: int, num_documents: int) -> Iterator[slice]:
    """Cut queries into blocks whose similarities to all documents stay in memory."""
    size = max(1, _BLOCK_SIMILARITIES // max(1, num_documents))
    for start in range(0, num_queries, size):
        yield slice(start, min(start + size, num_queries))
