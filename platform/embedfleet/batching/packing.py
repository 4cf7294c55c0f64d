"""Sequences laid end to end with no padding, the one value between batching and engines.

A sequence may continue a shared prefix (a reranker's instruction and query, computed once for all
its documents). Prefixes come first, then sequences, each as one segment of `token_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedfleet.messages import TokenIds

__all__ = ["PackedBatch", "pack"]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch as an engine takes it.

    Attributes:
        token_ids: (T,) int64: all prefixes, then all sequences.
        positions: (T,) int64: a sequence with a prefix starts counting at the prefix's length.
        cu_seqlens: (P + S + 1,) int32: where segments start and end.
        prefix_of: (S,) int32: the segment whose keys a sequence attends to first, -1 for none.
    """

    token_ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    cu_seqlens: npt.NDArray[np.int32]
    prefix_of: npt.NDArray[np.int32]

    @property
    def num_sequences(self) -> int:
        """Rows of the result, S."""
        return len(self.prefix_of)

    @property
    def num_prefixes(self) -> int:
        """Shared prefixes, P."""
        return len(self.cu_seqlens) - 1 - len(self.prefix_of)

    @property
    def num_tokens(self) -> int:
        """Tokens computed, T: a shared prefix counts once."""
        return len(self.token_ids)


def pack(
    sequences: Sequence[TokenIds],
    prefixes: Sequence[TokenIds] = (),
    prefix_of: Sequence[int] | None = None,
) -> PackedBatch:
    """Lay prefixes and sequences end to end.

    Args:
        sequences: Token ids of each sequence without its prefix; none may be empty.
        prefixes: Token ids of each shared prefix; none may be empty.
        prefix_of: For each sequence the index of its prefix, -1 for none. None means no prefixes.

    Raises:
        ValueError: A segment is empty, or an index points at no prefix. This is a bug.
    """
    if len(sequences) == 1 and not prefixes and len(sequences[0]):
        return _single(sequences[0])
    parents = np.full(len(sequences), -1, np.int32)
    if prefix_of is not None:
        parents = np.asarray(prefix_of, np.int32)
    segments = [*prefixes, *sequences]
    lengths = np.fromiter((len(s) for s in segments), np.int32, len(segments))
    if not len(sequences) or not lengths.all():
        raise ValueError("This is a bug: a batch needs at least one sequence and no empty segment.")
    if len(parents) != len(sequences) or parents.min() < -1 or parents.max() >= len(prefixes):
        raise ValueError("This is a bug: prefix_of points outside the batch's prefixes.")
    cu_seqlens = np.zeros(len(segments) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    offsets = np.zeros(len(segments), np.int64)
    shared = parents >= 0
    offsets[len(prefixes) :][shared] = lengths[parents[shared]]
    starts = np.repeat(cu_seqlens[:-1].astype(np.int64) - offsets, lengths)
    return PackedBatch(
        token_ids=np.concatenate(segments).astype(np.int64, copy=False),
        positions=np.arange(cu_seqlens[-1], dtype=np.int64) - starts,
        cu_seqlens=cu_seqlens,
        prefix_of=parents,
    )


def _single(sequence: TokenIds) -> PackedBatch:
    """One query on an idle engine pays for no bookkeeping of others."""
    return PackedBatch(
        token_ids=np.array(sequence, np.int64),
        positions=np.arange(len(sequence), dtype=np.int64),
        cu_seqlens=np.array((0, len(sequence)), np.int32),
        prefix_of=np.array((-1,), np.int32),
    )
