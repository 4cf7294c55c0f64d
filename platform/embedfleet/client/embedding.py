"""Embed requests to wire messages, and the answers to numpy arrays.

A vector is bytes on the wire twin: a batch of vectors becomes one array with one copy and no Python
float. The layout of each output type is the contract's (`OutputType`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedfleet.client.batches import Batch, raise_first
from embedfleet.client.decoding import (
    OUTPUT_TYPES,
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
from embedfleet.client.results import Embeddings
from embedfleet.client.transport import METHODS, Method
from embedfleet.errors import ContractMismatch
from embedfleet.messages import EmbedOptions, OutputType
from embedfleet.wire import common_pb2, embedding_pb2

__all__ = ["EmbedWork", "refuse_other_space", "vectors_of"]

_DTYPES: dict[OutputType, np.dtype[Any]] = {
    OutputType.FLOAT32: np.dtype("<f4"),
    OutputType.FLOAT16: np.dtype("<f2"),
    OutputType.INT8: np.dtype("i1"),
    OutputType.UINT8: np.dtype("u1"),
    OutputType.BINARY: np.dtype("i1"),
    OutputType.UBINARY: np.dtype("u1"),
}
_BITS = (OutputType.BINARY, OutputType.UBINARY)
_SCALED = (OutputType.INT8, OutputType.UINT8)


@dataclass(frozen=True, slots=True)
class EmbedWork:
    """Texts or token ids to vectors."""

    method: ClassVar[Method] = METHODS["Embed"]
    model: str
    options: EmbedOptions
    call: CallOptions

    def encode(self, batch: Batch) -> embedding_pb2.EmbedRequest:
        """Write one batch as a request message."""
        options = self.options
        return embedding_pb2.EmbedRequest(
            model=self.model.encode(),
            items=[_item(item) for item in batch.items],
            input_type=options.input_type,
            instruction=optional_bytes(options.instruction),
            dimension=options.dimension,
            normalize=options.normalize,
            output_type=options.output_type or common_pb2.OUTPUT_TYPE_UNSPECIFIED,
            truncation=options.truncation,
            priority=options.priority,
            expected_contract_hash=options.expected_contract_hash.encode(),
        )

    def decode(self, response: embedding_pb2.EmbedResponse, batch: Batch) -> Embeddings:
        """Read one batch's vectors; raises the first item's error unless errors are kept."""
        found = response.embeddings
        if len(found) != len(batch.items):
            raise broken(f"{len(found)} embeddings for {len(batch.items)} items")
        errors = {
            index: to_error(item.error, batch.start)
            for index, item in enumerate(found, batch.start)
            if item.HasField("error")
        }
        if not self.call.keep_errors:
            raise_first(errors, "items")
        output_type = self._output_type(response.output_type)
        failed = [index - batch.start for index in errors]
        scaled = output_type in _SCALED
        return Embeddings(
            vectors=_vectors(response, output_type, failed),
            dimension=response.dimension,
            output_type=output_type,
            scales=np.array([item.scale for item in found], np.float32) if scaled else None,
            num_tokens=np.array([item.num_tokens for item in found], np.int64),
            truncated=np.array([item.truncated for item in found], np.bool_),
            errors=errors,
            usage=to_usage(response.usage),
            timings=to_timings(response.timings),
            provenance=to_provenance(response.provenance),
        )

    def join(self, parts: Sequence[Embeddings]) -> Embeddings:
        """Put the batches of one input together, in order."""
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            refuse_other_space(parts[0], part)
        # A batch without any vector need not know the dimension.
        dimension = max(part.dimension for part in parts)
        scales = [part.scales for part in parts if part.scales is not None]
        return replace(
            parts[0],
            vectors=np.concatenate([_widen(part, dimension) for part in parts]),
            dimension=dimension,
            scales=np.concatenate(scales) if scales else None,
            num_tokens=np.concatenate([part.num_tokens for part in parts]),
            truncated=np.concatenate([part.truncated for part in parts]),
            errors={index: error for part in parts for index, error in part.errors.items()},
            usage=sum_usage(part.usage for part in parts),
            timings=sum_timings(part.timings for part in parts),
        )

    def _output_type(self, number: int) -> OutputType:
        """Read which type came, and refuse another than was asked for."""
        found, asked = OUTPUT_TYPES.get(number), self.options.output_type
        if found is None or asked not in (None, found):
            raise broken(f"output type {number} where {asked or 'a known one'} was asked for")
        return found


def refuse_other_space(first: Embeddings, other: Embeddings) -> None:
    """Raise where two parts of one input do not belong in one array."""
    refuse_other_contract(first.provenance, other.provenance)
    if first.output_type is not other.output_type:
        raise ContractMismatch(
            f"output_type was {first.output_type} for the first request and {other.output_type} "
            "for a later one: the model's default changed meanwhile. Start again, or name an "
            "output_type.",
            field="output_type",
        )


def vectors_of(start: int, part: Embeddings) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Give each vector of a batch with its place in the input, failed items left out."""
    for index, vector in enumerate(part.vectors, start):
        if index not in part.errors:
            yield index, vector


def _item(item: bytes | list[int]) -> embedding_pb2.EmbedItem:
    if isinstance(item, bytes):
        return embedding_pb2.EmbedItem(text=item)
    return embedding_pb2.EmbedItem(token_ids=common_pb2.TokenIds(ids=item))


def _vectors(
    response: embedding_pb2.EmbedResponse, output_type: OutputType, failed: Sequence[int]
) -> npt.NDArray[Any]:
    """Read (N, D) components, or (N, ceil(D / 8)) bytes of bits; `failed` rows are blank."""
    is_float32 = output_type is OutputType.FLOAT32
    rows = [item.values if is_float32 else item.packed for item in response.embeddings]
    blank = _blank(1, response.dimension, output_type).tobytes()
    for row in failed:
        rows[row] = blank
    if any(len(row) != len(blank) for row in rows):
        raise broken(f"vectors that are not {len(blank)} bytes of {output_type}")
    # A bytearray, so that the array is writable without another copy.
    vectors = np.frombuffer(bytearray().join(rows), _DTYPES[output_type])
    return vectors.reshape(len(rows), len(blank) // _DTYPES[output_type].itemsize)


def _widen(part: Embeddings, dimension: int) -> npt.NDArray[Any]:
    if part.dimension == dimension:
        return part.vectors
    if len(part.errors) < len(part):
        raise broken(f"dimension {part.dimension} after {dimension}")
    return _blank(len(part), dimension, part.output_type)


def _blank(num_rows: int, dimension: int, output_type: OutputType) -> npt.NDArray[Any]:
    dtype = _DTYPES[output_type]
    width = -(-dimension // 8) if output_type in _BITS else dimension
    return np.full((num_rows, width), np.nan if dtype.kind == "f" else 0, dtype)
