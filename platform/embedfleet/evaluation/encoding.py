"""Texts to vectors and scores by the engine that serves, with what was cut and how fast it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.errors import EmbedfleetError
from embedfleet.evaluation.ranking import NOTHING, Ranking
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    Float32Array,
    InputType,
    RerankOptions,
    Truncation,
)
from embedfleet.tokenization import EmbeddingTokenizer

if TYPE_CHECKING:
    from embedfleet.engine import LocalEmbedder, LocalReranker

__all__ = [
    "Encoded",
    "Progress",
    "Reranked",
    "SecondStage",
    "embed_documents",
    "embed_queries",
    "rerank",
]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a named piece of work of so many steps; what it gives counts the steps done."""

_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of texts, (n, native) of unit length."""

    vectors: Float32Array
    num_tokens: int
    num_truncated: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """A second stage's ranking; what was below its depth keeps its order behind."""

    ranking: Ranking
    num_pairs: int
    num_truncated: int
    seconds: float


def embed_documents(
    embedder: LocalEmbedder,
    texts: Sequence[str],
    max_tokens: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Embed documents, cutting the end of those over `max_tokens` (None: the engine's limit)."""
    limit = min(max_tokens or embedder.tokenizer.max_tokens, embedder.tokenizer.max_tokens)
    tokenizer = EmbeddingTokenizer(embedder.tokenizer.tokenizer, limit)
    options = EmbedOptions(InputType.DOCUMENT, truncation=Truncation.END)
    return _embed((embedder, tokenizer), texts, options, advance)


def embed_queries(
    embedder: LocalEmbedder, texts: Sequence[str], instruction: str | None = DEFAULT_INSTRUCTION
) -> Encoded:
    """Embed queries; an instruction of None leaves it out, and the query stands bare."""
    kind = InputType.DOCUMENT if instruction is None else InputType.QUERY
    options = EmbedOptions(kind, instruction=instruction, truncation=Truncation.END)
    return _embed((embedder, embedder.tokenizer), texts, options, lambda done: None)


def _embed(
    model: tuple[LocalEmbedder, EmbeddingTokenizer],
    texts: Sequence[str],
    options: EmbedOptions,
    advance: Callable[[int], None],
) -> Encoded:
    embedder, tokenizer = model
    vectors = np.empty((len(texts), embedder.engine.info.native_dimension), np.float32)
    num_tokens = num_truncated = 0
    started = perf_counter()
    for start in range(0, len(texts), _CHUNK):
        items = [EmbedItem(text=text) for text in texts[start : start + _CHUNK]]
        sequences = []
        for outcome in tokenizer(items, options, DEFAULT_INSTRUCTION):
            if isinstance(outcome, EmbedfleetError):
                raise outcome
            sequences.append(outcome.token_ids)
            num_tokens += len(outcome.token_ids)
            num_truncated += outcome.truncated
        vectors[start : start + _CHUNK] = embedder.embed_tokens(sequences)
        advance(len(items))
    return Encoded(vectors, num_tokens, num_truncated, perf_counter() - started)


@dataclass(frozen=True, slots=True)
class SecondStage:
    """How a reranker goes through a first stage's documents.

    Attributes:
        depth: So many of each query's documents.
        max_document_tokens: A document's own tokens; its end is cut. None: whatever fits.
    """

    depth: int
    instruction: str = DEFAULT_INSTRUCTION
    max_document_tokens: int | None = None


def rerank(
    reranker: LocalReranker,
    texts: tuple[Sequence[str], Sequence[str]],
    first: Ranking,
    stage: SecondStage,
    advance: Callable[[int], None] = lambda done: None,
) -> Reranked:
    """Order each query's first documents anew, by log-odds: these do not saturate.

    Args:
        reranker: The model.
        texts: Queries, and the corpus that `first` points into.
        first: The first stage's ranking.
        stage: How deep, and with what.
        advance: Counts queries.
    """
    queries, documents = texts
    options = RerankOptions(
        instruction=stage.instruction,
        max_tokens_per_document=stage.max_document_tokens,
        truncation=Truncation.END,
    )
    scores = np.full(first.scores.shape, -np.inf, np.float32)
    places = np.array(first.places)
    num_pairs = num_truncated = 0
    started = perf_counter()
    for row, query in enumerate(queries):
        found = first.places[row][first.places[row] != NOTHING]
        chosen = found[: stage.depth]
        if len(chosen):
            some = [documents[place] for place in chosen]
            tokens = reranker.tokenizer(query, some, options, DEFAULT_INSTRUCTION)
            scores[row, : len(chosen)] = reranker.score_tokens(tokens)
            num_pairs += len(chosen)
            num_truncated += sum(getattr(each, "truncated", False) for each in tokens.documents)
            behind = np.arange(1, len(found) - len(chosen) + 1, dtype=np.float32)
            scores[row, len(chosen) : len(found)] = scores[row, : len(chosen)].min() - behind
        order = np.argsort(-scores[row], kind="stable")
        places[row], scores[row] = places[row][order], scores[row][order]
        advance(1)
    return Reranked(Ranking(places, scores), num_pairs, num_truncated, perf_counter() - started)
