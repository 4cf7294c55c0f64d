"""Pooled hidden states to the vectors that were asked for.

Leading components are sliced first and normalised after: the other order gives vectors that are
not of unit length (Matryoshka truncation, arXiv 2205.13147; model cards of Qwen3-Embedding). All
arithmetic is in float32; knows nothing of requests, engines or the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedfleet.catalog import MIN_DIMENSION
from embedfleet.errors import EngineError, InvalidRequest, NonFiniteResult
from embedfleet.messages import Float32Array, OutputType

__all__ = ["Finish", "Vectors", "check_dimension", "finish"]

_SCALED = (OutputType.INT8, OutputType.UINT8)


@dataclass(frozen=True, slots=True)
class Finish:
    """What a vector shall be: leading components kept (already checked), unit length, type."""

    dimension: int
    normalize: bool = True
    output_type: OutputType = OutputType.FLOAT32


@dataclass(frozen=True, slots=True)
class Vectors:
    """Finished vectors, in the order of their hidden states.

    Attributes:
        data: Each vector's little-endian bytes; meaningless where there is an error.
        scales: Largest magnitude of each vector, only of INT8 and UINT8, else 0.
        errors: By position, why a hidden state gives no vector.
    """

    data: list[bytes]
    scales: list[float]
    errors: dict[int, EngineError]


def check_dimension(
    dimension: int, native: int, allowed: Sequence[int], output_type: OutputType
) -> None:
    """Check a dimension before anything is computed for it.

    Args:
        dimension: What the request asked for, or its default.
        native: Width of the model's hidden state.
        allowed: If not empty, the only dimensions that the resource lets requests name.
        output_type: BINARY and UBINARY pack eight components to a byte.

    Raises:
        InvalidRequest: It is out of range, not allowed, or does not fill whole bytes.
    """
    lowest = min(MIN_DIMENSION, native)
    if not lowest <= dimension <= native:
        raise InvalidRequest(
            f"dimension is {dimension}; this model gives {lowest} to {native}. Choose one of "
            "these, or leave it out for the default.",
            field="dimension",
        )
    if allowed and dimension not in allowed:
        choices = ", ".join(map(str, sorted(allowed)))
        raise InvalidRequest(
            f"dimension is {dimension}; this embedder allows {choices}. Choose one of these, or "
            "leave it out for the default.",
            field="dimension",
        )
    if output_type.packs_bits and dimension % 8:
        raise InvalidRequest(
            f"dimension is {dimension}; {output_type} packs eight components to a byte, so it must "
            f"be a multiple of 8. Choose {dimension - dimension % 8}, or another output_type.",
            field="dimension",
        )


def finish(hidden: Float32Array, how: Finish) -> Vectors:
    """Slice, normalise and encode pooled hidden states, (N, D) float32 after the final norm."""
    vectors = hidden[:, : how.dimension]
    errors: dict[int, EngineError] = {}
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if how.normalize:
            lengths: Float32Array = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))
            has_direction = (lengths[:, 0] > 0) & (lengths[:, 0] < np.inf)
            # A component that is NaN or infinite makes its length so: usually one look is enough.
            if not has_direction.all():
                _note_components(errors, vectors)
                _note(errors, has_direction, "a length of zero or beyond float32, so no direction")
            vectors = vectors / lengths
        else:
            _note_components(errors, vectors)
        scales = np.zeros(len(vectors), np.float32)
        if how.output_type in _SCALED:
            scales = np.abs(vectors).max(axis=1, initial=0)
        encoded = _encode(vectors, scales[:, None], how.output_type)
    if how.output_type is OutputType.FLOAT16:
        _note(errors, np.isfinite(encoded).all(axis=1), "a component beyond FLOAT16")
    return Vectors([row.tobytes() for row in encoded], scales.tolist(), errors)


def _encode(
    vectors: Float32Array, scales: Float32Array, output_type: OutputType
) -> npt.NDArray[Any]:
    """Return (N, bytes or components) in the wire's element type."""
    match output_type:
        case OutputType.FLOAT32:
            return vectors.astype("<f4", copy=False)
        case OutputType.FLOAT16:
            return vectors.astype("<f2")
        case OutputType.INT8:
            return _levels(vectors, scales).astype(np.int8)
        case OutputType.UINT8:
            return (_levels(vectors, scales) + 128).astype(np.uint8)
        case OutputType.UBINARY:
            return np.packbits(vectors > 0, axis=1)
        case OutputType.BINARY:
            return np.packbits(vectors > 0, axis=1) ^ np.uint8(0x80)  # minus 128, as a signed byte


def _levels(vectors: Float32Array, scales: Float32Array) -> Float32Array:
    """Return round(127 x / scale) as whole numbers; a vector of zeros stays zeros."""
    return np.rint(np.float32(127) * vectors / np.where(scales > 0, scales, np.float32(1)))


def _note_components(errors: dict[int, EngineError], vectors: Float32Array) -> None:
    _note(errors, np.isfinite(vectors).all(axis=1), "a component that is NaN or infinite")


def _note(errors: dict[int, EngineError], good: npt.ArrayLike, what: str) -> None:
    for row in np.flatnonzero(np.logical_not(good)):
        errors.setdefault(
            int(row),
            NonFiniteResult(
                f"The model's state for this text has {what}. Retry with weights float32; if it "
                "stays, the checkpoint is damaged."
            ),
        )
