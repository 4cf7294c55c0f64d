"""Rerank requests to wire messages, and the answers to rankings.

A score stands for itself, so documents may be scored in several requests and ranked together. The
fleet is asked for log-odds, which still differ where probabilities have become 1 or equal in the
float32 that an answer holds; they are made probabilities once the order is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from embedfleet.client.batches import Batch, raise_first
from embedfleet.client.decoding import (
    broken,
    optional_bytes,
    refuse_other_contract,
    sum_timings,
    sum_usage,
    to_error,
    to_provenance,
    to_timings,
    to_usage,
)
from embedfleet.client.options import CallOptions
from embedfleet.client.results import RankedDocument, Ranking
from embedfleet.client.transport import METHODS, Method
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import RerankOptions
from embedfleet.scores import probabilities
from embedfleet.wire import reranking_pb2

__all__ = ["RerankWork"]


@dataclass(frozen=True, slots=True)
class RerankWork:
    """One query and its documents to scores."""

    method: ClassVar[Method] = METHODS["Rerank"]
    model: str
    query: str
    documents: Sequence[str]
    options: RerankOptions
    call: CallOptions

    def encode(self, batch: Batch) -> reranking_pb2.RerankRequest:
        """Write the query and one batch of documents as a request message."""
        options = self.options
        return reranking_pb2.RerankRequest(
            model=self.model.encode(),
            query=optional_bytes(self.query),
            documents=batch.texts("documents"),
            instruction=optional_bytes(options.instruction),
            top_n=options.top_n,
            raw_scores=True,
            max_tokens_per_document=options.max_tokens_per_document,
            truncation=options.truncation,
            priority=options.priority,
            expected_contract_hash=options.expected_contract_hash.encode(),
        )

    def decode(self, response: reranking_pb2.RerankResponse, batch: Batch) -> Ranking:
        """Read one batch's log-odds; raises the first document's error unless errors are kept."""
        results: list[RankedDocument] = []
        errors: dict[int, EmbedfleetError] = {}
        for found in response.results:
            if found.index >= len(batch.items):
                raise broken(f"document {found.index} of {len(batch.items)}")
            index = batch.start + found.index
            if found.HasField("error"):
                errors[index] = to_error(found.error, batch.start)
                continue
            results.append(
                RankedDocument(
                    index=index,
                    score=found.score,
                    document=self.documents[index],
                    num_tokens=found.num_tokens,
                    truncated=found.truncated,
                )
            )
        if not self.call.keep_errors:
            raise_first(errors, "documents")
        return Ranking(
            results=tuple(results),
            errors=errors,
            usage=to_usage(response.usage),
            timings=to_timings(response.timings),
            provenance=to_provenance(response.provenance),
        )

    def join(self, parts: Sequence[Ranking]) -> Ranking:
        """Rank the documents of all batches together, and score them as was asked for."""
        for part in parts:
            refuse_other_contract(parts[0].provenance, part.provenance)
        ranked = sorted(
            (result for part in parts for result in part.results),
            key=lambda result: (-result.score, result.index),
        )[: self.options.top_n]
        return Ranking(
            results=tuple(ranked if self.options.raw_scores else map(_as_probability, ranked)),
            errors={index: error for part in parts for index, error in part.errors.items()},
            usage=sum_usage(part.usage for part in parts),
            timings=sum_timings(part.timings for part in parts),
            provenance=parts[0].provenance,
        )


def _as_probability(result: RankedDocument) -> RankedDocument:
    return replace(result, score=float(probabilities(np.array(result.score, np.float64))))
