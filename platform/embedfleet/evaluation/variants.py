"""What an index of one dimension and element type finds: the trade of quality for bytes.

Documents are encoded as they are served and decoded again, so that what is measured is what an
index would hold; queries stay float32. Binary search first takes the documents of the smallest
Hamming distance, four times as many as are wanted, then orders these by the float query's product
with the bits (BINARY) or with int8 components kept beside them (BINARY+INT8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from embedfleet.errors import InvalidRequest
from embedfleet.evaluation.ranking import NOTHING, Places, Ranking, best, blocks
from embedfleet.messages import Float32Array, OutputType
from embedfleet.vectors import Finish, check_dimension, finish

__all__ = [
    "OUTPUT_TYPES",
    "OVERSAMPLING",
    "Index",
    "Variant",
    "dimensions_of",
    "stored",
    "variants_of",
]

BINARY_INT8: Final = "BINARY+INT8"
OUTPUT_TYPES: Final = ("FLOAT32", "FLOAT16", "INT8", "BINARY", BINARY_INT8)
OVERSAMPLING: Final = 4
_ROWS: Final = 8192
_SCALE_BYTES: Final = 4
_SMALLEST: Final = 32


@dataclass(frozen=True, slots=True)
class Variant:
    """Leading components kept, and how an index holds them (one of OUTPUT_TYPES)."""

    dimension: int
    output_type: str = "FLOAT32"


@dataclass(frozen=True, slots=True)
class Index:
    """Documents as an index of one variant holds them, decoded.

    Attributes:
        documents: (N, dimension): what products are taken with.
        signs: (N, dimension) of +1 and -1 where the first stage is by Hamming distance, else None.
        bytes_per_vector: What one document takes, the scale of INT8 included.
    """

    documents: Float32Array
    signs: Float32Array | None
    bytes_per_vector: int

    @classmethod
    def build(cls, vectors: Float32Array, variant: Variant) -> Index:
        """Encode (N, native) vectors as a variant.

        Raises:
            InvalidRequest: The dimension is not one of the model's, or does not fill whole bytes.
        """
        documents, num_bytes = stored(vectors, variant)
        if variant.output_type == OutputType.BINARY:
            return cls(documents, documents, num_bytes)
        if variant.output_type == BINARY_INT8:
            signs, _ = _decoded(vectors, variant.dimension, OutputType.BINARY)
            return cls(documents, signs, num_bytes)
        return cls(documents, None, num_bytes)

    def search(self, queries: Float32Array, k: int, own: Sequence[int]) -> Ranking:
        """Find k documents for each query by comparing with all.

        Args:
            queries: (num_queries, native).
            k: Documents to find.
            own: For each query the document that it is itself, NOTHING for none.
        """
        asked, _ = _decoded(queries, self.documents.shape[1], OutputType.FLOAT32)
        themselves = np.asarray(own, np.int64)
        found = [
            self._block(asked[rows], k, themselves[rows])
            for rows in blocks(len(asked), len(self.documents))
        ]
        return Ranking(
            np.concatenate([each.places for each in found]),
            np.concatenate([each.scores for each in found]),
        )

    def _block(self, asked: Float32Array, k: int, own: Places) -> Ranking:
        if self.signs is None:
            return best(_without(asked @ self.documents.T, own), k)
        # Products of signs are whole numbers, dimension - 2 * distance: exact in float32.
        near = np.where(asked > 0, np.float32(1), np.float32(-1)) @ self.signs.T
        candidates = best(_without(near, own), OVERSAMPLING * k).places
        scores = np.take_along_axis(asked @ self.documents.T, candidates, axis=1)
        scores[candidates == NOTHING] = -np.inf
        again = best(scores, k)
        places = np.take_along_axis(candidates, np.maximum(again.places, 0), axis=1)
        return Ranking(np.where(again.places == NOTHING, NOTHING, places), again.scores)


def stored(vectors: Float32Array, variant: Variant) -> tuple[Float32Array, int]:
    """Encode (N, native) vectors as a variant and decode them, and tell the bytes of one.

    Of BINARY+INT8 it is the int8 components: where nothing is searched, bits select nothing.

    Raises:
        InvalidRequest: The dimension does not fill whole bytes.
    """
    if variant.output_type == BINARY_INT8:
        documents, num_bytes = _decoded(vectors, variant.dimension, OutputType.INT8)
        return documents, num_bytes + variant.dimension // 8
    return _decoded(vectors, variant.dimension, OutputType(variant.output_type))


def dimensions_of(native: int) -> tuple[int, ...]:
    """Give 32 and its doubles below the native dimension, and the native one."""
    doubles = []
    dimension = _SMALLEST
    while dimension < native:
        doubles.append(dimension)
        dimension *= 2
    return (*doubles, native)


def variants_of(
    native: int, dimensions: Sequence[int] | None, output_types: Iterable[str]
) -> list[Variant]:
    """Give every dimension with every type, the native FLOAT32 first.

    Args:
        native: Width of the model's hidden state.
        dimensions: None means 32 and its doubles up to the native one.
        output_types: Of OUTPUT_TYPES.

    Raises:
        InvalidRequest: A dimension is not one of the model's, or does not fill whole bytes.
    """
    types = list(output_types)
    if dimensions is None:
        wanted = [
            Variant(dimension, kind)
            for dimension in dimensions_of(native)
            for kind in types
            if not (kind.startswith("BINARY") and dimension % 8)
        ]
    else:
        wanted = [Variant(dimension, kind) for dimension in dimensions for kind in types]
    for each in wanted:
        packed = each.output_type.startswith("BINARY")
        check_dimension(
            each.dimension, native, (), OutputType.BINARY if packed else OutputType.FLOAT32
        )
    return list(dict.fromkeys((Variant(native), *wanted)))


def _decoded(
    vectors: Float32Array, dimension: int, output_type: OutputType
) -> tuple[Float32Array, int]:
    """Encode as served, decode as an index would: (N, dimension), and bytes of one vector."""
    decoded = np.empty((len(vectors), dimension), np.float32)
    num_bytes = 0
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        made = finish(vectors[rows], Finish(dimension, True, output_type))
        if made.errors:
            raise made.errors[min(made.errors)]
        num_bytes = len(made.data[0])
        data = b"".join(made.data)
        match output_type:
            case OutputType.FLOAT32:
                decoded[rows] = np.frombuffer(data, "<f4").reshape(-1, dimension)
            case OutputType.FLOAT16:
                decoded[rows] = np.frombuffer(data, "<f2").reshape(-1, dimension)
            case OutputType.INT8:
                scales = np.array(made.scales, np.float32)[:, None] / 127
                decoded[rows] = np.frombuffer(data, np.int8).reshape(-1, dimension) * scales
                num_bytes += _SCALE_BYTES
            case OutputType.BINARY:
                signed = np.frombuffer(data, np.uint8).reshape(-1, dimension // 8)
                packed = np.bitwise_xor(signed, np.uint8(0x80))
                decoded[rows] = np.unpackbits(packed, axis=1) * np.float32(2) - 1
            case _:
                raise InvalidRequest(
                    f"output type is {output_type}; one of {', '.join(OUTPUT_TYPES)} is evaluated. "
                    "UINT8 is as good as INT8, and UBINARY as BINARY.",
                    field="output_types",
                )
    return decoded, num_bytes


def _without(scores: Float32Array, own: Places) -> Float32Array:
    rows = np.flatnonzero(own != NOTHING)
    scores[rows, own[rows]] = -np.inf
    return scores
