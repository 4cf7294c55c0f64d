"""Measures of rankings by trec_eval's own code, one value a query.

nDCG@10 with linear gains, reciprocal rank within ten, recall at 10 and at 100. Of equal scores
trec_eval puts the greater document id first, whatever the order they were found in.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.ranking import NOTHING, Ranking

__all__ = ["DEPTH", "MEASURES", "PRIMARY", "measure"]

MEASURES: Final = ("ndcg@10", "mrr@10", "recall@10", "recall@100")
PRIMARY: Final = MEASURES[0]
DEPTH: Final = 100
"""Documents a ranking must hold for every measure."""

_TREC_NAMES: Final = ("ndcg_cut_10", "recip_rank", "recall_10", "recall_100")
_WITHIN: Final = 10


def measure(dataset: RetrievalDataset, ranking: Ranking) -> npt.NDArray[np.float64]:
    """Measure a ranking: (num_queries, num_measures), in the order of the dataset's queries."""
    evaluator = needed("pytrec_eval").RelevanceEvaluator(
        {query: dict(judged) for query, judged in dataset.relevance.items()}, set(_TREC_NAMES)
    )
    run = {
        query: {
            dataset.document_ids[place]: float(score)
            for place, score in zip(places, scores, strict=True)
            if place != NOTHING
        }
        for query, places, scores in zip(
            dataset.query_ids, ranking.places, ranking.scores, strict=True
        )
    }
    found = evaluator.evaluate(run)
    # A query that found nothing is absent from trec_eval's answer.
    nothing = dict.fromkeys(_TREC_NAMES, 0.0)
    rows = [[found.get(query, nothing)[name] for name in _TREC_NAMES] for query in run]
    values = np.array(rows, np.float64).reshape(len(run), len(_TREC_NAMES))
    reciprocal = values[:, 1]
    # trec_eval knows no cut of the reciprocal rank: beyond the tenth place it is below 1/10.
    reciprocal[reciprocal < 0.999 / _WITHIN] = 0.0
    return values
