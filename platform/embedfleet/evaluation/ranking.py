"""What a search found, and the best of a block of scores; knows nothing of models or measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedfleet.messages import Float32Array
from embedfleet.topk import top_places

__all__ = ["NOTHING", "Places", "Ranking", "best", "blocks"]

Places = npt.NDArray[np.int64]
NOTHING = -1
_BLOCK_SCORES = 16_777_216  # 64 MiB of float32 at a time


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents found for each query, best first.

    Attributes:
        places: (num_queries, k) int64: positions in the corpus, NOTHING after the last found.
        scores: (num_queries, k) float32, of the same order; comparable within a query only.
    """

    places: Places
    scores: Float32Array

    def top(self, depth: int) -> Ranking:
        """Keep the best `depth` of each query."""
        return Ranking(self.places[:, :depth], self.scores[:, :depth])


def best(scores: Float32Array, k: int) -> Ranking:
    """Find the k best of each row of (num_queries, num_documents); of equals the first ones.

    Documents with a score of minus infinity are not found.
    """
    places = top_places(scores, k)
    found = np.take_along_axis(scores, places, axis=1)
    return Ranking(np.where(np.isneginf(found), NOTHING, places), found)


def blocks(num_queries: int, num_documents: int) -> list[slice]:
    """Cut queries so that the scores of one block against all documents stay in memory."""
    rows = max(1, _BLOCK_SCORES // max(1, num_documents))
    return [slice(start, start + rows) for start in range(0, num_queries, rows)]
