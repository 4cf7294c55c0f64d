"""The models' part in mining: what is near a query, and what a reranker takes for an answer.

Queries and documents are embedded once, with the engine that serves, and compared by blocks, so
that memory grows with the vectors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.engine import (
    EngineOptions,
    LocalEmbedder,
    LocalReranker,
    load_embedder,
    load_reranker,
)
from embedfleet.errors import EmbedfleetError, InvalidRequest
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    Float32Array,
    InputType,
    RerankOptions,
    Truncation,
)
from embedfleet.scores import probabilities
from embedfleet.tokenization import EmbeddingTokenizer
from embedfleet.tuning.collection import Collection, Query
from embedfleet.tuning.negatives import Candidates, MiningSettings, candidates, row_blocks

__all__ = ["MiningModels", "Progress", "choose", "search"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a named piece of work of so many steps; what it gives counts the steps done."""

_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class MiningModels:
    """What judges nearness.

    Attributes:
        embedder: Source of the embedder.
        dimension: Leading components compared. None means all.
        max_document_tokens: A document's end is cut there.
        reranker: Source of a reranker that sees what the filters pass. None: none does.
        max_score: What it scores higher is taken for an answer, and dropped.
        options: Device and type of both.

    Raises:
        InvalidRequest: A value is out of its range.
    """

    embedder: str
    dimension: int | None = None
    max_document_tokens: int = 512
    reranker: str | None = None
    max_score: float = 0.5
    options: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.max_score <= 1:
            raise InvalidRequest(
                f"max_score is {self.max_score:g}; scores lie between 0 and 1.", field="max_score"
            )
        if self.max_document_tokens < 2:
            raise InvalidRequest(
                f"max_document_tokens is {self.max_document_tokens}; it must be at least 2.",
                field="max_document_tokens",
            )


def search(
    collection: Collection, models: MiningModels, settings: MiningSettings, progress: Progress
) -> list[Candidates]:
    """Embed everything and find the candidates of every query.

    Raises:
        CheckpointError: The embedder's files are not what they should be.
        InvalidRequest: The dimension is not one of the model's, or a text cannot be taken.
    """
    with load_embedder(models.embedder, options=models.options) as embedder:
        total = len(collection.documents) + len(collection.queries)
        with progress("embedding texts", total) as advance:
            documents = _documents(embedder, collection.documents, models, advance)
            queries = _queries(embedder, collection.queries, models, advance)
    found: list[Candidates] = []
    with progress("searching queries", len(queries)) as advance:
        for block in row_blocks(len(queries), collection.num_candidates):
            asked = collection.queries[block]
            nearness = [
                float((documents[sorted(query.positives)] @ vector).min())
                for query, vector in zip(asked, queries[block], strict=True)
            ]
            # What is no candidate lies behind them.
            excluded = [
                [place for place in query.excluded if place < collection.num_candidates]
                for query in asked
            ]
            found += candidates(
                queries[block] @ documents[: collection.num_candidates].T,
                excluded,
                np.array(nearness, np.float32),
                settings,
                block.start,
            )
            advance(len(asked))
    return found


def _documents(
    embedder: LocalEmbedder,
    texts: Sequence[str],
    models: MiningModels,
    advance: Callable[[int], None],
) -> Float32Array:
    limit = min(models.max_document_tokens, embedder.tokenizer.max_tokens)
    tokenizer = EmbeddingTokenizer(embedder.tokenizer.tokenizer, limit)
    options = EmbedOptions(InputType.DOCUMENT, truncation=Truncation.END)
    parts = []
    for start in range(0, len(texts), _CHUNK):
        items = [EmbedItem(text=text) for text in texts[start : start + _CHUNK]]
        sequences = []
        for outcome in tokenizer(items, options, DEFAULT_INSTRUCTION):
            if isinstance(outcome, EmbedfleetError):
                raise outcome
            sequences.append(outcome.token_ids)
        parts.append(embedder.embed_tokens(sequences, dimension=models.dimension))
        advance(len(items))
    return np.concatenate(parts)


def _queries(
    embedder: LocalEmbedder,
    queries: Sequence[Query],
    models: MiningModels,
    advance: Callable[[int], None],
) -> Float32Array:
    """Embed queries, those of one instruction together."""
    by_instruction: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        by_instruction.setdefault(query.instruction, []).append(number)
    width = models.dimension or embedder.engine.info.native_dimension
    vectors = np.empty((len(queries), width), np.float32)
    for instruction, numbers in by_instruction.items():
        for start in range(0, len(numbers), _CHUNK):
            rows = numbers[start : start + _CHUNK]
            vectors[rows] = embedder.embed(
                [queries[row].text for row in rows],
                InputType.QUERY,
                instruction=instruction,
                dimension=models.dimension,
                truncation=Truncation.END,
            )
            advance(len(rows))
    return vectors


def choose(
    collection: Collection,
    passed: Sequence[Candidates],
    judging: tuple[MiningModels, MiningSettings],
    progress: Progress,
) -> tuple[list[list[str]], int]:
    """Take the negatives of every query, and count what the reranker dropped.

    Raises:
        CheckpointError: The reranker's files are not what they should be.
    """
    models, settings = judging
    texts = collection.documents
    if models.reranker is None:
        return [[texts[p] for p in each.places[: settings.negatives]] for each in passed], 0
    chosen, dropped = [], 0
    with (
        load_reranker(models.reranker, options=models.options) as reranker,
        progress("reranking queries", len(passed)) as advance,
    ):
        for query, each in zip(collection.queries, passed, strict=True):
            kept: list[str] = []
            # No more are scored than are needed.
            for start in range(0, len(each.places), settings.negatives):
                some = [texts[p] for p in each.places[start : start + settings.negatives]]
                good = _scores(reranker, query, some, models) <= models.max_score
                dropped += int((~good).sum())
                kept += [text for text, fine in zip(some, good, strict=True) if fine]
                if len(kept) >= settings.negatives:
                    break
            chosen.append(kept[: settings.negatives])
            advance(1)
    return chosen, dropped


def _scores(
    reranker: LocalReranker, query: Query, texts: Sequence[str], models: MiningModels
) -> Float32Array:
    options = RerankOptions(
        instruction=query.instruction,
        max_tokens_per_document=models.max_document_tokens,
        truncation=Truncation.END,
    )
    tokens = reranker.tokenizer(query.text, texts, options, DEFAULT_INSTRUCTION)
    return probabilities(reranker.score_tokens(tokens))
