"""Golden outputs as values and as text: what one contract gave for the golden set.

Of a vector the first components are kept and made unit length again: leading components are an
embedding themselves (Matryoshka, arXiv 2205.13147), and the text stays small. Knows no engine, no
request and no cluster.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from embedfleet.errors import InvalidManifest
from embedfleet.golden.texts import GOLDEN_TEXTS
from embedfleet.messages import Float32Array, Role
from embedfleet.resources.contract import CONTRACT_VERSION

__all__ = ["GOLDEN_KEY", "MAX_DIMENSION", "NUM_OUTPUTS", "Golden", "Outputs"]

GOLDEN_KEY: Final = "golden.json"
"""Key of a ConfigMap under which golden outputs stand."""

MAX_DIMENSION: Final = 256
"""Components kept of a vector: 8 texts of them fit a ConfigMap 190 times over."""

NUM_OUTPUTS: Final = len(GOLDEN_TEXTS)

_MAX_FILE_CHARACTERS: Final = 65_536
_UNIT_TOLERANCE: Final = 0.01

Outputs = Mapping[int, Float32Array]
"""Unit vector (d,) or raw score (1,) by place in the golden set.

A text that is too long for the model has none.
"""


class Golden(BaseModel):
    """What one contract gave.

    Attributes:
        version: Of the golden set and of this form: another text needs another number.
        instruction: What queries were told to look for.
        dimension: Components of a vector that were kept; 1 for scores.
        missing: Places in the golden set that the model had no room for.
        outputs: Base64 of the others, in order, little-endian: float16 vectors, float32 scores.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True
    )

    version: Literal[1] = 1
    role: Role
    contract_hash: Annotated[str, Field(pattern=rf"^{CONTRACT_VERSION}:[0-9a-f]{{32}}$")]
    instruction: Annotated[str, Field(min_length=1, max_length=4096)]
    dimension: Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
    missing: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=NUM_OUTPUTS)], ...], Field(max_length=NUM_OUTPUTS - 1)
    ] = ()
    outputs: Annotated[str, Field(max_length=8_192)]

    @model_validator(mode="after")
    def _hold_outputs(self) -> Self:
        if self.role is Role.RERANKER and self.dimension != 1:
            raise ValueError(f"dimension is {self.dimension}: a score has 1.")
        if list(self.missing) != sorted(set(self.missing)):
            raise ValueError(f"missing is {list(self.missing)}: each place once, in order.")
        values = self._values()
        if not np.isfinite(values).all():
            raise ValueError("outputs holds NaN or infinity.")
        lengths = np.linalg.norm(values, axis=1)
        if self.role is Role.EMBEDDER and (np.abs(lengths - 1) > _UNIT_TOLERANCE).any():
            raise ValueError("outputs holds vectors that are not of unit length.")
        return self

    @classmethod
    def of(cls, role: Role, contract_hash: str, instruction: str, outputs: Outputs) -> Self:
        """Keep what a model gave, at least one output; vectors may have any one dimension."""
        embeds = role is Role.EMBEDDER
        kept = {place: _prefix(row) if embeds else row for place, row in sorted(outputs.items())}
        rows = np.stack(list(kept.values()))
        return cls(
            role=role,
            contract_hash=contract_hash,
            instruction=instruction,
            dimension=rows.shape[1],
            missing=tuple(place for place in range(NUM_OUTPUTS) if place not in kept),
            outputs=base64.b64encode(rows.astype(_dtype(role)).tobytes()).decode(),
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read what `to_json` wrote; `where` names the place for errors.

        Raises:
            InvalidManifest: It is not golden outputs; says field, value, limit and next move.
        """
        if len(text) > _MAX_FILE_CHARACTERS:
            raise InvalidManifest(
                f"{where} has {len(text):,} characters; golden outputs have at most "
                f"{_MAX_FILE_CHARACTERS:,}. {_RECORD}",
                field=where,
            )
        try:
            return cls.model_validate_json(text, by_name=False, by_alias=True)
        except ValidationError as refused:
            raise InvalidManifest(f"{where}: {_first(refused)}. {_RECORD}", field=where) from None

    def to_json(self) -> str:
        """Write as small, sorted JSON: equal outputs, equal bytes."""
        fields = self.model_dump(mode="json", by_alias=True)
        return json.dumps(fields, ensure_ascii=False, indent=1, sort_keys=True)

    def decoded(self) -> dict[int, Float32Array]:
        """Give the outputs by place in the golden set."""
        present = [place for place in range(NUM_OUTPUTS) if place not in self.missing]
        return dict(zip(present, self._values(), strict=True))

    def _values(self) -> Float32Array:
        """Decode (n, dimension)."""
        dtype = _dtype(self.role)
        try:
            data = base64.b64decode(self.outputs, validate=True)
        except binascii.Error as broken:
            raise ValueError(f"outputs is not base64: {broken}") from None
        num_rows = NUM_OUTPUTS - len(self.missing)
        expected = num_rows * self.dimension * dtype.itemsize
        if len(data) != expected:
            raise ValueError(
                f"outputs has {len(data):,} bytes; {num_rows} of {self.dimension} components have "
                f"{expected:,}"
            )
        return np.frombuffer(data, dtype).astype(np.float32).reshape(num_rows, self.dimension)


_RECORD: Final = "Record it again with `embedfleet golden`."


def _dtype(role: Role) -> np.dtype[Any]:
    return np.dtype("<f2") if role is Role.EMBEDDER else np.dtype("<f4")


def _prefix(vector: Float32Array) -> Float32Array:
    kept = vector[:MAX_DIMENSION]
    unit: Float32Array = kept / np.linalg.norm(kept)
    return unit


def _first(refused: ValidationError) -> str:
    """Say the first thing that is wrong: field, value, limit."""
    detail = refused.errors(include_url=False)[0]
    path = ".".join(map(str, detail["loc"]))
    message = detail["msg"].removeprefix("Value error, ").rstrip(".")
    if not path:
        return message
    value = detail["input"]
    found = f" is {str(value)[:80]!r}" if isinstance(value, str | int | float) else ""
    return f"{path}{found}: {message}"
