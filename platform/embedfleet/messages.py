"""Requests and results inside the platform: no protobuf, no torch.

The codec turns wire messages into these and back; everything behind it speaks only these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from embedfleet.errors import EmbedfleetError

__all__ = [
    "EmbedItem",
    "EmbedOptions",
    "EmbedOutcome",
    "EmbedResult",
    "Float32Array",
    "InputType",
    "OutputType",
    "Priority",
    "Provenance",
    "RerankOptions",
    "RerankOutcome",
    "RerankResult",
    "Role",
    "Timings",
    "TokenIds",
    "Truncation",
]

TokenIds = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


class Role(StrEnum):
    """What a model is served as. Told by the manifest: the files of both roles look alike."""

    EMBEDDER = "embedder"
    RERANKER = "reranker"


class InputType(StrEnum):
    """Whether a text is asked for or searched in: only queries carry an instruction."""

    QUERY = "QUERY"
    DOCUMENT = "DOCUMENT"


class OutputType(StrEnum):
    """Element type of a returned vector."""

    FLOAT32 = "FLOAT32"
    FLOAT16 = "FLOAT16"
    INT8 = "INT8"
    UINT8 = "UINT8"
    BINARY = "BINARY"
    UBINARY = "UBINARY"

    @property
    def packs_bits(self) -> bool:
        """Whether eight components make a byte, so that a dimension must be a multiple of 8."""
        return self in (OutputType.BINARY, OutputType.UBINARY)


class Truncation(StrEnum):
    """What to do with text over the limit: refuse it, or drop its end or its start."""

    NONE = "NONE"
    END = "END"
    START = "START"


class Priority(StrEnum):
    """Which queue a request waits in."""

    INTERACTIVE = "INTERACTIVE"
    BULK = "BULK"


@dataclass(frozen=True, slots=True)
class EmbedItem:
    """One input: text, or token ids without special tokens. Exactly one of them is set."""

    text: str | None = None
    token_ids: TokenIds | None = None


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How the items of one request become vectors.

    Attributes:
        instruction: Replaces the model's default; only for queries. None means the default.
        dimension: Number of leading components kept before normalising. None means the default.
        output_type: None means the model's default.
        truncation: What happens to a text over the limit; each outcome says if it was cut.
    """

    input_type: InputType
    instruction: str | None = None
    dimension: int | None = None
    normalize: bool = True
    output_type: OutputType | None = None
    truncation: Truncation = Truncation.NONE
    priority: Priority = Priority.INTERACTIVE
    expected_contract_hash: str = ""


@dataclass(frozen=True, slots=True)
class EmbedOutcome:
    """One item's result: `data` holds the vector's little-endian bytes, or `error` says why not.

    Attributes:
        scale: Of INT8 and UINT8 only: largest magnitude in the vector, which 127 stands for.
    """

    data: bytes = b""
    scale: float = 0.0
    num_tokens: int = 0
    truncated: bool = False
    error: EmbedfleetError | None = None


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How a query's documents are scored.

    Attributes:
        instruction: Replaces the model's default. None means the default.
        raw_scores: Return logit(yes) - logit(no) instead of its sigmoid.
        max_tokens_per_document: Upper bound for one document's own tokens. None means the rest.
    """

    instruction: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False
    max_tokens_per_document: int | None = None
    truncation: Truncation = Truncation.NONE
    priority: Priority = Priority.INTERACTIVE
    expected_contract_hash: str = ""


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """One document's score by its position in the request, or the error that took its place.

    Attributes:
        num_tokens: The document's own and those that close the prompt; what all documents share
            is counted with the request.
    """

    index: int
    score: float = 0.0
    num_tokens: int = 0
    truncated: bool = False
    error: EmbedfleetError | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one request's time went, in seconds."""

    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    total_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a result: the name asked for, the revision served, the vector contract's hash."""

    model: str
    revision: str
    contract_hash: str


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """A whole request's outcomes, in the order of its items."""

    outcomes: Sequence[EmbedOutcome]
    dimension: int
    output_type: OutputType
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class RerankResult:
    """A whole request's outcomes, best score first, failed documents last.

    Attributes:
        outcomes: Only the best `top_n` if that was asked for; the counts below cover all.
        input_tokens: Tokens computed: instruction and query count once for all documents.
    """

    outcomes: Sequence[RerankOutcome]
    input_tokens: int = 0
    num_documents: int = 0
    num_truncated: int = 0
    num_failed: int = 0
    timings: Timings = field(default_factory=Timings)
