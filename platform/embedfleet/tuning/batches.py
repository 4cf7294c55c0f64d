"""The examples of a step as token ids, in micro-batches of sequences of like length.

Micro-batches hold sequences of any kind, sorted by length, so that little is padding; `rows` tells
which of the batch they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedfleet.messages import TokenIds

__all__ = [
    "Batches",
    "ContrastiveRows",
    "MicroBatch",
    "PairRows",
    "Share",
    "TokenBatch",
    "micro_batches",
]


@dataclass(frozen=True, slots=True)
class Share:
    """Which worker this is, from 0, of how many."""

    rank: int = 0
    workers: int = 1

    def part(self, count: int) -> range:
        """Return this worker's places of so many, after those that do not divide evenly."""
        each = count // self.workers
        return range(self.rank * each, (self.rank + 1) * each)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences that pass through the model at once.

    Attributes:
        token_ids: (b, t) int64, padded on the right.
        last: (b,) int64: place of each last token.
        rows: (b,) int64: which sequences of the batch they are.
    """

    token_ids: Tensor
    last: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> MicroBatch:
        """Copy to a device."""
        return MicroBatch(
            *(each.to(device, non_blocking=True) for each in (self.token_ids, self.last, self.rows))
        )


@dataclass(frozen=True, slots=True)
class ContrastiveRows:
    """Which sequences are what: the first n are queries, the next n their positives.

    Attributes:
        num_queries: n, of this worker.
        negatives: (n, k) int64: sequence of each negative; 0 where there is none.
        negative_mask: (n, k) bool: whether there is one.
        document_ids: (n,) int64: equal where positives are the same text.
        negative_ids: (n, k) int64: of negatives, in the same numbering.
    """

    num_queries: int
    negatives: Tensor
    negative_mask: Tensor
    document_ids: Tensor
    negative_ids: Tensor


@dataclass(frozen=True, slots=True)
class PairRows:
    """Which pairs are answered with yes.

    Attributes:
        labels: (m,) int64: 1 for yes, of this worker's pairs.
        total: Pairs of all workers.
    """

    labels: Tensor
    total: int


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One step's work for one worker.

    Attributes:
        sequences: Token ids of each.
        rows: What they are to the loss.
        step: From 0.
        corpus_rows: Examples they are from, of all workers.
        num_truncated: Sequences that lost their end.
    """

    sequences: Sequence[TokenIds]
    rows: ContrastiveRows | PairRows
    step: int
    corpus_rows: npt.NDArray[np.int64]
    num_truncated: int

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        return sum(map(len, self.sequences))


class Batches(Protocol):
    """Batches of one worker, by step."""

    def batch(self, step: int) -> TokenBatch:
        """Draw, read and tokenize a step's examples; the same for the same step."""


def micro_batches(sequences: Sequence[TokenIds], max_tokens: int) -> list[MicroBatch]:
    """Sort sequences by length, longest first, and cut them into micro-batches.

    Args:
        sequences: Each of at least one token.
        max_tokens: Of one micro-batch, padding included; a longer sequence is one by itself.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    order = np.argsort(-lengths, kind="stable")
    parts: list[MicroBatch] = []
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        rows = order[start : start + max(1, max_tokens // longest)]
        token_ids = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):
            token_ids[place, : lengths[row]] = sequences[row]
        last = torch.from_numpy(lengths[rows] - 1)
        parts.append(MicroBatch(torch.from_numpy(token_ids), last, torch.from_numpy(rows)))
        start += len(rows)
    return parts
