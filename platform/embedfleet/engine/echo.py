"""An engine without a model: measures what surrounds one.

Rows depend on token ids only, so answers can still be told apart and checked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedfleet.batching.packing import PackedBatch
from embedfleet.engine.base import EngineInfo, YieldPoint
from embedfleet.errors import WrongRole
from embedfleet.messages import Float32Array, Role

__all__ = ["EchoEngine"]

_NUM_ROWS = 251  # prime, so that sums of neighbouring ids do not fall together


class EchoEngine:
    """Fulfils the engine contract by looking up one row a sequence.

    Args:
        role: What it pretends to be.
        native_dimension: Width of its vectors.
        max_tokens: Longest sequence it claims to accept.
    """

    def __init__(self, role: Role, native_dimension: int, max_tokens: int) -> None:
        table = np.random.default_rng(0).standard_normal((_NUM_ROWS, native_dimension))
        self._table: Float32Array = table.astype(np.float32)
        self._info = EngineInfo(
            role=role,
            device="cpu",
            dtype="float32",
            kernels={"model": "echo"},
            weights_bytes=self._table.nbytes,
            native_dimension=native_dimension,
            max_tokens=max_tokens,
            parallel=True,
        )

    @property
    def info(self) -> EngineInfo:
        """Facts that do not change while the engine lives."""
        return self._info

    def embed(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Look up the row of each sequence's sum of token ids, prefix included."""
        self._expect(Role.EMBEDDER, "embed")
        return self._table[_rows(batch)]

    def score(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Look up the first component of each sequence's row."""
        self._expect(Role.RERANKER, "score")
        scores: Float32Array = self._table[_rows(batch), 0]
        return scores

    def close(self) -> None:
        """Do nothing: there is no device."""

    def _expect(self, role: Role, method: str) -> None:
        if self._info.role is not role:
            raise WrongRole(
                f"{method} needs a model served as {role}; this one is served as "
                f"{self._info.role}. Ask another model."
            )


def _rows(batch: PackedBatch) -> npt.NDArray[np.int64]:
    sums = np.add.reduceat(batch.token_ids, batch.cu_seqlens[:-1])
    own, parents = sums[batch.num_prefixes :], batch.prefix_of
    if batch.num_prefixes:
        own = own + np.where(parents >= 0, sums[parents], 0)
    return own % _NUM_ROWS
