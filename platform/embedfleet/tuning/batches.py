"""The examples of a step as token ids, in micro-batches of sequences of like length.

Micro-batches hold sequences of any kind, sorted by length, so that little is padding; `rows` tells
which of the batch they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

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


Int64Array = npt.NDArray[np.int64]

_CALL_SHARE: Final = 1 / 16
"""What a call of the model costs beside its tokens, as a share of a full micro-batch."""

_MAX_PLACES: Final = 512


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
    """Batches of one worker, by step; several threads may ask at once."""

    def batch(self, step: int) -> TokenBatch:
        """Draw, read and tokenize a step's examples; the same for the same step."""


def micro_batches(sequences: Sequence[TokenIds], max_tokens: int) -> list[MicroBatch]:
    """Sort sequences by length, longest first, and cut them where least is padding.

    Args:
        sequences: Each of at least one token.
        max_tokens: Of one micro-batch, padding included; a longer sequence is one by itself.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    order = np.argsort(-lengths, kind="stable")
    parts: list[MicroBatch] = []
    for rows in np.split(order, _cuts(lengths[order], max_tokens)):
        token_ids = np.zeros((len(rows), int(lengths[rows[0]])), np.int64)
        for place, row in enumerate(rows):
            token_ids[place, : lengths[row]] = sequences[row]
        last = torch.from_numpy(lengths[rows] - 1)
        parts.append(MicroBatch(torch.from_numpy(token_ids), last, torch.from_numpy(rows)))
    return parts


def _cuts(lengths: Int64Array, max_tokens: int) -> list[int]:
    """Choose where micro-batches start, after the first.

    A shortest path over places where the length changes: a run of sequences costs their tokens,
    padding included, and what calling the model costs for each micro-batch that it takes.

    Args:
        lengths: (n,) descending.
        max_tokens: Of one micro-batch.
    """
    places = np.concatenate(([0], np.flatnonzero(np.diff(lengths)) + 1))
    if len(places) > _MAX_PLACES:
        places = places[np.linspace(0, len(places) - 1, _MAX_PLACES).astype(np.int64)]
    ends = np.append(places[1:], len(lengths))
    call = max_tokens * _CALL_SHARE
    least = np.zeros(len(places) + 1)
    chosen = np.zeros(len(places) + 1, np.int64)
    for end in range(1, len(places) + 1):
        starts = places[:end]
        tokens = (ends[end - 1] - starts) * lengths[starts]
        calls = np.ceil((ends[end - 1] - starts) / np.maximum(1, max_tokens // lengths[starts]))
        costs = least[:end] + tokens + call * calls
        chosen[end] = int(costs.argmin())
        least[end] = costs[chosen[end]]
    runs = []
    end = len(places)
    while end:
        runs.append((int(places[chosen[end]]), int(ends[end - 1])))
        end = int(chosen[end])
    cuts: list[int] = []
    for start, stop in reversed(runs):
        calls = -(-(stop - start) // max(1, max_tokens // int(lengths[start])))
        # Of even size, so that none is a remainder of one sequence.
        cuts.extend(start + (stop - start) * call_number // calls for call_number in range(calls))
    return cuts[1:]
