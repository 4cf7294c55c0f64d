"""Examples as vectors, which a contrastive loss compares: value types and their parts.

Vectors are of any length here; the loss makes them unit length itself, after it has cut them.
Knows neither texts beyond their numbers, nor workers.

Shape legend: N rows of the loss, K hard negatives of a row, P rows of the pool, D components.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from embedfleet.tuning.identity import text_key

__all__ = ["Contrast", "Pool", "document_ids"]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Where in-batch negatives come from: the examples of the whole batch, on all workers.

    Attributes:
        queries: (P, D) of any length.
        positives: (P, D), the first positive of each query.
        document_ids: (P,) int64; equal ids are identical documents. None: all differ.
        first_row: Place of the loss's own first row in it.
    """

    queries: Tensor
    positives: Tensor
    document_ids: Tensor | None = None
    first_row: int = 0

    def unit(self, dtype: torch.dtype) -> Pool:
        """Bring every vector to unit length."""
        return replace(
            self, queries=_unit(self.queries, dtype), positives=_unit(self.positives, dtype)
        )

    def cut(self, dimension: int) -> Pool:
        """Keep the leading components."""
        return replace(
            self, queries=self.queries[:, :dimension], positives=self.positives[:, :dimension]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Examples as vectors of any length; the loss makes them unit length itself.

    Attributes:
        queries: (N, D).
        positives: (N, D).
        negatives: (N, K, D) hard negatives, or None.
        negative_mask: (N, K) bool, False where there is no such negative. None: all are there.
        document_ids: (N,) int64 of the positives; equal ids are identical documents.
        negative_ids: (N, K) int64, to find hard negatives that are the positive itself.
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor | None = None
    negative_mask: Tensor | None = None
    document_ids: Tensor | None = None
    negative_ids: Tensor | None = None

    def pool(self) -> Pool:
        """Take the rows themselves as the whole batch."""
        return Pool(self.queries, self.positives, self.document_ids)

    def unit(self, dtype: torch.dtype) -> Contrast:
        """Bring every vector to unit length."""
        return replace(
            self,
            queries=_unit(self.queries, dtype),
            positives=_unit(self.positives, dtype),
            negatives=None if self.negatives is None else _unit(self.negatives, dtype),
        )

    def cut(self, dimension: int) -> Contrast:
        """Keep the leading components."""
        return replace(
            self,
            queries=self.queries[:, :dimension],
            positives=self.positives[:, :dimension],
            negatives=None if self.negatives is None else self.negatives[..., :dimension],
        )

    def rows(self, start: int, stop: int) -> Contrast:
        """Take some of the rows."""

        def part(rows: Tensor | None) -> Tensor | None:
            return None if rows is None else rows[start:stop]

        return Contrast(
            self.queries[start:stop],
            self.positives[start:stop],
            part(self.negatives),
            part(self.negative_mask),
            part(self.document_ids),
            part(self.negative_ids),
        )

    def absent(self) -> Tensor | None:
        """Tell which hard negatives do not count: (N, K), or None if all do."""
        absent = None if self.negative_mask is None else ~self.negative_mask.bool()
        if self.negative_ids is None or self.document_ids is None:
            return absent
        same = self.negative_ids == self.document_ids[:, None]
        return same if absent is None else same | absent


def document_ids(texts: Sequence[str]) -> Tensor:
    """Number texts so that identical ones get equal numbers on every worker: (n,) int64.

    Identical means after NFC and without surrounding white space. Two of ten million different
    texts share a number with probability 5e-6.
    """
    digests = (hashlib.blake2b(text_key(text).encode(), digest_size=8).digest() for text in texts)
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests]).long()


def _unit(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return F.normalize(rows.to(dtype), dim=-1)
