"""Recording golden outputs: what is asked of a served model, and its answers as one value.

Each text is a request of its own, so that no limit on a request stands in the way, and every answer
must be of the contract that the model said it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from embedfleet.client.batches import Batch
from embedfleet.client.embedding import EmbedWork
from embedfleet.client.options import (
    EmbedKeywords,
    RerankKeywords,
    embed_options,
    rerank_options,
)
from embedfleet.client.reranking import RerankWork
from embedfleet.client.results import Embeddings, ModelInfo, Ranking
from embedfleet.client.work import Work
from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.golden import (
    GOLDEN_DOCUMENTS,
    GOLDEN_QUERY,
    GOLDEN_TEXTS,
    MAX_DIMENSION,
    Golden,
)
from embedfleet.messages import Float32Array, InputType, OutputType, Role

__all__ = ["Answer", "golden_of", "golden_works"]

Answer = Embeddings | Ranking

_SECONDS: Final = 60.0  # of the options only: whoever sends the requests bounds them


def golden_works(info: ModelInfo) -> list[tuple[Work[Any], Batch]]:
    """Say what to ask, one request a golden text.

    Raises:
        Unavailable: No replica has said yet which contract it serves.
    """
    if not info.contract_hash:
        raise Unavailable(
            f"{info.name} is not ready: {info.message or 'no reason given'}. Record its outputs "
            "when it serves."
        )
    if info.role is Role.EMBEDDER:
        return [
            (_embed(info, text.input_type), Batch(0, [text.text.encode()])) for text in GOLDEN_TEXTS
        ]
    return [
        (_rerank(info, document), Batch(0, [document.encode()])) for document in GOLDEN_DOCUMENTS
    ]


def golden_of(info: ModelInfo, answers: Sequence[Answer]) -> Golden:
    """Keep the answers to `golden_works`, in its order.

    Raises:
        InvalidRequest: No golden text fits the model.
        EmbedfleetError: A text failed for another reason than its length.
    """
    rows = {place: row for place, each in enumerate(answers) if (row := _row(each)) is not None}
    if not rows:
        raise InvalidRequest(
            f"{info.name} takes {info.max_tokens} tokens, and no golden text fits. Raise "
            f"{'spec.maxTokens' if info.role is Role.EMBEDDER else 'spec.maxPairTokens'}."
        )
    return Golden.of(info.role, info.contract_hash, info.default_instruction, rows)


def _embed(info: ModelInfo, input_type: InputType) -> EmbedWork:
    keywords = EmbedKeywords(
        dimension=max(info.allowed_dimensions, default=min(MAX_DIMENSION, info.native_dimension)),
        output_type=OutputType.FLOAT32,
        expected_contract_hash=info.contract_hash,
        on_item_error="keep",
    )
    if input_type is InputType.QUERY:
        keywords["instruction"] = _instruction(info)
    return EmbedWork(info.name, *embed_options(input_type, keywords, _SECONDS))


def _rerank(info: ModelInfo, document: str) -> RerankWork:
    keywords = RerankKeywords(
        instruction=_instruction(info),
        raw_scores=True,
        expected_contract_hash=info.contract_hash,
        on_item_error="keep",
    )
    return RerankWork(info.name, GOLDEN_QUERY, [document], *rerank_options(keywords, _SECONDS))


def _instruction(info: ModelInfo) -> str | None:
    """Give the model's own by its words, so that no replica that has not heard of it can differ."""
    return info.default_instruction if info.allow_instruction_override else None


def _row(answer: Answer) -> Float32Array | None:
    """Read one output; None for a text that is too long for the model."""
    if (error := answer.errors.get(0)) is not None:
        if isinstance(error, InvalidRequest):
            return None
        raise error
    if isinstance(answer, Embeddings):
        return np.asarray(answer.vectors[0], np.float32)
    return np.array([answer.results[0].score], np.float32)
