"""Halves a packed batch by sequences, for a device that has no room for all of it."""

from __future__ import annotations

import numpy as np

from embedfleet.batching.packing import PackedBatch, pack

__all__ = ["halves"]


def halves(batch: PackedBatch) -> tuple[PackedBatch, PackedBatch]:
    """Split into two batches of consecutive sequences, each with the prefixes it needs.

    Raises:
        ValueError: The batch has a single sequence. This is a bug.
    """
    middle = batch.num_sequences // 2
    if middle == 0:
        raise ValueError("This is a bug: a batch of one sequence cannot be halved.")
    return _take(batch, 0, middle), _take(batch, middle, batch.num_sequences)


def _take(batch: PackedBatch, start: int, stop: int) -> PackedBatch:
    segments = np.split(batch.token_ids, batch.cu_seqlens[1:-1])
    parents = batch.prefix_of[start:stop]
    kept = np.unique(parents[parents >= 0])
    renumbered = np.where(parents >= 0, np.searchsorted(kept, parents), -1)
    first = batch.num_prefixes + start
    return pack(
        segments[first : first + stop - start],
        [segments[i] for i in kept],
        renumbered.tolist(),
    )
