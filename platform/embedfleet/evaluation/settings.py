"""What is evaluated, on what, how, and who is told: values that one call is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.engine import EngineOptions
from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.encoding import Progress
from embedfleet.evaluation.similarity import Pairs

__all__ = ["DEFAULT_MAX_DOCUMENT_TOKENS", "Candidate", "Data", "Settings", "Watch"]

DEFAULT_MAX_DOCUMENT_TOKENS: Final = 8192
"""What the published models' own examples read of a text."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to evaluate: how reports call it, and where it is."""

    label: str
    source: str


@dataclass(frozen=True, slots=True)
class Data:
    """What models are measured on; names of datasets and pairs differ."""

    datasets: tuple[RetrievalDataset, ...] = ()
    pairs: tuple[Pairs, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how models run.

    Attributes:
        dimensions: None means 32 and its doubles up to each model's native one.
        output_types: How vectors are stored; the native dimension in FLOAT32 always counts too.
        depth: Documents that a reranker orders anew for each query.
        max_document_tokens: The end of longer documents is cut.
        instruction: Of queries, for embedders and rerankers.
        ablate_instruction: Measure embedders without instruction too.
    """

    dimensions: tuple[int, ...] | None = None
    output_types: tuple[str, ...] = ("FLOAT32", "FLOAT16", "INT8", "BINARY")
    depth: int = 100
    max_document_tokens: int = DEFAULT_MAX_DOCUMENT_TOKENS
    instruction: str = DEFAULT_INSTRUCTION
    ablate_instruction: bool = False
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what goes on: a progress bar, and a line for each finished piece."""

    progress: Progress
    note: Callable[[str], None]
