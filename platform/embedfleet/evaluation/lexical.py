"""BM25, the baseline beside every result (Robertson et al. 1994; bm25s, arXiv 2407.03618).

Lucene's variant with k1 = 1.5 and b = 0.75; words of two letters and more in lower case, English
stop words left out, Snowball stems where PyStemmer is installed. A document that shares no word
with the query is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Final

import numpy as np

from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.ranking import NOTHING, Ranking, best

__all__ = ["BM25", "Lexical", "describe"]

BM25: Final = "bm25"
_K1: Final = 1.5
_B: Final = 0.75


@dataclass(frozen=True, slots=True)
class Lexical:
    """What the baseline found.

    Attributes:
        documents_per_second: Of tokenizing and indexing.
    """

    ranking: Ranking
    documents_per_second: float

    @classmethod
    def search(
        cls, documents: Sequence[str], queries: Sequence[str], k: int, own: Sequence[int]
    ) -> Lexical:
        """Index documents and search them.

        Args:
            documents: The corpus.
            queries: What is asked.
            k: Documents to find for each query.
            own: For each query the document that it is itself, NOTHING for none.
        """
        bm25s = needed("bm25s")
        started = perf_counter()
        vocabulary: dict[str, int] = {}
        ids = [_ids(tokens, vocabulary, grow=True) for tokens in _words(bm25s, documents)]
        index = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        index.index((ids, vocabulary), show_progress=False)
        seconds = perf_counter() - started
        asked = [_ids(tokens, vocabulary, grow=False) for tokens in _words(bm25s, queries)]
        rows = [_scores(index, each, len(documents)) for each in asked]
        found = [_found(scores, place, k) for scores, place in zip(rows, own, strict=True)]
        ranking = Ranking(
            np.concatenate([each.places for each in found]),
            np.concatenate([each.scores for each in found]),
        )
        return cls(ranking, len(documents) / seconds)


def describe() -> str:
    """Say in one line what the baseline is, for reports."""
    stems = "Snowball stems" if _stemmer() else "no stemming (PyStemmer is not installed)"
    return f"BM25 (lucene, k1={_K1}, b={_B}), English stop words, {stems}"


def _stemmer() -> Any:
    return needed("Stemmer").Stemmer("english") if find_spec("Stemmer") else None


def _words(bm25s: Any, texts: Sequence[str]) -> Any:
    return bm25s.tokenize(
        list(texts), stopwords="en", stemmer=_stemmer(), return_ids=False, show_progress=False
    )


def _ids(words: Sequence[str], vocabulary: dict[str, int], grow: bool) -> list[int]:
    if grow:
        return [vocabulary.setdefault(word, len(vocabulary)) for word in words]
    # The empty word stands for a text without any: it must not find documents without any.
    return [vocabulary[word] for word in words if word and word in vocabulary]


def _scores(index: Any, ids: list[int], num_documents: int) -> Any:
    if not ids:
        return np.zeros(num_documents, np.float32)
    return index.get_scores_from_ids(ids)


def _found(scores: Any, own: int, k: int) -> Ranking:
    if own != NOTHING:
        scores[own] = 0
    return best(np.where(scores > 0, scores, -np.inf)[None, :].astype(np.float32), k)
