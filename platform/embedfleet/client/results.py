"""What the client gives back: numpy arrays and plain values, never protobuf.

Rows stand in the order of the input. A row whose item failed is NaN in float types and zero in the
others, and its index is a key of `errors`: nothing else tells it from a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedfleet.errors import EmbedfleetError, InvalidRequest
from embedfleet.messages import OutputType, Provenance, Role, Timings

__all__ = [
    "Embeddings",
    "ModelInfo",
    "RankedDocument",
    "Ranking",
    "Tokenization",
    "TokenizedText",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call cost, prompts included: what a reranker's documents share counts once."""

    input_tokens: int = 0
    num_items: int = 0
    num_truncated: int = 0
    num_failed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of one input of any length.

    Attributes:
        vectors: (N, D) float32, float16, int8 or uint8; (N, ceil(D / 8)) bytes of bits for BINARY
            (int8) and UBINARY (uint8).
        dimension: D, also where a row holds bits.
        scales: (N,) float32 for INT8 and UINT8, else None.
        num_tokens: (N,) int64, prompt included.
        truncated: (N,) bool, true where text was dropped to fit.
        errors: Why an item has no vector, by its index in the input.
        timings: Summed over the requests that the input took.
    """

    vectors: npt.NDArray[Any]
    dimension: int
    output_type: OutputType
    scales: npt.NDArray[np.float32] | None
    num_tokens: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]
    errors: Mapping[int, EmbedfleetError]
    usage: Usage
    timings: Timings
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.vectors)

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Give (N, D) float32 whatever was asked for; bits have no way back and are refused."""
        if self.output_type in (OutputType.BINARY, OutputType.UBINARY):
            raise InvalidRequest(
                f"output_type is {self.output_type}, which keeps signs only; ask for FLOAT32, "
                "FLOAT16, INT8 or UINT8 to get components back.",
                field="output_type",
            )
        components = self.vectors.astype(np.float32)
        if self.scales is None:
            return components
        if self.output_type is OutputType.UINT8:
            components -= 128
        components *= (self.scales / np.float32(127))[:, None]
        if self.errors:
            components[sorted(self.errors)] = np.nan
        return components


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One document's score.

    Attributes:
        index: Its place in the documents given.
        score: Between 0 and 1, or logit(yes) - logit(no) where raw scores were asked for.
        num_tokens: Its own and those that close the prompt; the part before it, computed once for
            all documents, is counted in `Usage.input_tokens` alone.
    """

    index: int
    score: float
    document: str
    num_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scored documents, best first; failed ones are only in `errors`, by index."""

    results: tuple[RankedDocument, ...]
    errors: Mapping[int, EmbedfleetError]
    usage: Usage
    timings: Timings
    provenance: Provenance


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """The exact ids that the engine would compute, prompt and final tokens included."""

    ids: npt.NDArray[np.int64]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Tokenization:
    """One entry a text, in order; a failed one has no ids and is a key of `errors`."""

    texts: tuple[TokenizedText, ...]
    errors: Mapping[int, EmbedfleetError]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A served model, its limits and what its vectors are made of.

    Attributes:
        message: Why the model is not ready.
        allowed_dimensions: If not empty, the only dimensions that a request may name.
        max_tokens: Longest sequence, prompt and final token included.
        max_items_per_request: Texts or documents that one request may hold.
        default_output_type: Of vectors where a request names none; None of a reranker.
        contract: What `contract_hash` is made of, by field name.
    """

    name: str
    aliases: tuple[str, ...]
    role: Role
    ready: bool
    message: str
    source: str
    revision: str
    contract_hash: str
    contract: Mapping[str, str]
    native_dimension: int
    default_dimension: int
    allowed_dimensions: tuple[int, ...]
    max_tokens: int
    max_items_per_request: int
    default_instruction: str
    allow_instruction_override: bool
    output_types: tuple[OutputType, ...]
    default_output_type: OutputType | None
    device: str
    dtype: str
