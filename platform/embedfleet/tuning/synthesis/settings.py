"""The settings of a synthesis as its YAML file spells them, each default written once.

Bounds are wide enough for any endpoint and narrow enough to catch a slip of the hand. Knows nothing
of files or of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.resources.base import PATTERNS, Part, Violation
from embedfleet.tuning.synthesis.endpoint_settings import EndpointSettings

__all__ = [
    "Budget",
    "Filter",
    "Instructions",
    "Language",
    "Length",
    "Model",
    "PassageSettings",
    "PersonaSettings",
    "Prices",
    "SynthesisSettings",
    "Task",
]

_LANGUAGE: Final = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
_REVISION: Final = r"^([0-9a-f]{40})?$"
PATTERNS[_LANGUAGE] = "must be a language code such as en, de or zh-Hant (RFC 5646)"
PATTERNS[_REVISION] = "must be a commit of 40 lower-case hex digits"

Language = Annotated[str, Field(pattern=_LANGUAGE, max_length=35)]
_Path = Annotated[str, Field(min_length=1, max_length=4096)]
_Weight = Annotated[float, Field(gt=0, le=1_000_000)]


class Task(StrEnum):
    """What a pair of texts teaches."""

    RETRIEVAL = "retrieval"
    BITEXT = "bitext"
    CLASSIFICATION = "classification"
    STS = "sts"


class PassageSettings(Part):
    """The texts that queries are written for."""

    file: _Path
    """JSON Lines where the name ends in .jsonl, otherwise one passage a line."""
    field: Annotated[str, Field(min_length=1)] = "text"
    """Field of a JSON line that holds the passage."""
    language: Language = "en"
    """Language of the passages."""
    language_field: Annotated[str, Field(min_length=1)] | None = None
    """Field of a JSON line that holds its own language."""
    min_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Shorter passages are skipped and counted."""
    max_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 8_000
    """Longer passages are skipped and counted."""

    def violations(self) -> Iterator[Violation]:
        """The range is the right way up."""
        if self.max_characters < self.min_characters:
            yield Violation(
                "maxCharacters", self.max_characters,
                f"must be at least minCharacters, {self.min_characters}",
                "Raise it or lower minCharacters.", ("minCharacters",),
            )  # fmt: skip


class Prices(Part):
    """What the endpoint costs."""

    prompt_per_million: Annotated[float, Field(ge=0, le=1_000_000)]
    """Price of a million prompt tokens."""
    completion_per_million: Annotated[float, Field(ge=0, le=1_000_000)]
    """Price of a million tokens of answers."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    """What prices are in."""


class Budget(Part):
    """What all runs into one folder may use together."""

    max_requests: Annotated[int, Field(ge=0)] | None = None
    """Requests sent, repeated ones too. 0 makes none: only the answers at hand are used."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """In the currency of prices; what is in flight when it is reached still comes in."""


class PersonaSettings(Part):
    """Who asks."""

    file: _Path | None = None
    """One persona a line, or JSON Lines with a field `persona`. Default: a small list."""
    candidates: Annotated[int, Field(ge=1, le=20)] = 5
    """How many are offered for one passage."""


class Length(Part):
    """How long a query shall be."""

    min_words: Annotated[int, Field(ge=1, le=1000)]
    """Words at least."""
    max_words: Annotated[int, Field(ge=1, le=1000)]
    """Words at most."""

    def violations(self) -> Iterator[Violation]:
        """The range is the right way up."""
        if self.max_words < self.min_words:
            yield Violation(
                "maxWords", self.max_words, f"must be at least minWords, {self.min_words}",
                "Raise it or lower minWords.", ("minWords",),
            )  # fmt: skip


class Instructions(Part):
    """What each task's queries are told, in the examples and in the filter."""

    retrieval: Annotated[str, Field(min_length=1, max_length=4096)] = DEFAULT_INSTRUCTION
    """Of searches."""
    bitext: Annotated[str, Field(min_length=1, max_length=4096)] = "Retrieve parallel sentences"
    """Of translations."""
    classification: Annotated[str, Field(min_length=1, max_length=4096)] = (
        "Retrieve texts of the same category"
    )
    """Of texts of one class."""
    sts: Annotated[str, Field(min_length=1, max_length=4096)] = "Retrieve semantically similar text"
    """Of texts of one meaning."""

    def of(self, task: Task) -> str:
        """Give a task's own."""
        found: str = getattr(self, task)
        return found


class Model(Part):
    """An embedder."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    """Folder, `file:///` address, `embedded/NAME`, or hub name."""
    revision: Annotated[str, Field(pattern=_REVISION)] = ""
    """Commit of a hub source. Default: the one pinned for a published model."""


class Filter(Part):
    """Which pairs are kept."""

    model: Model
    """Embedder that compares a query with its passage."""
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.7
    """Pairs are kept whose cosine is above it."""


class SynthesisSettings(Part):
    """All of a synthesis."""

    passages: PassageSettings
    """The texts that queries are written for."""
    output_folder: _Path
    """Where the answers, the examples and the report go; a run into the same folder goes on."""
    endpoint: EndpointSettings
    """The language model."""
    filter: Filter
    """Which pairs are kept."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Decides which personas, language and length each query is offered."""
    queries_per_passage: Annotated[int, Field(ge=1, le=100)] = 1
    """Queries written for one passage."""
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=4)] = tuple(Task)
    """What pairs shall teach; of these, those that fit a passage are offered."""
    instructions: Instructions = Instructions()
    """What each task's queries are told."""
    languages: Annotated[dict[Language, _Weight], Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: {"en": 1.0}
    )
    """Languages of queries, and how often each is drawn relative to the others."""
    lengths: Annotated[tuple[Length, ...], Field(min_length=1, max_length=50)] = (
        Length(min_words=2, max_words=5),
        Length(min_words=6, max_words=12),
        Length(min_words=13, max_words=30),
    )
    """Lengths of queries, drawn alike."""
    personas: PersonaSettings = PersonaSettings()
    """Who asks."""
    prices: Prices | None = None
    """What the endpoint costs. Default: unknown."""
    tokenizer: _Path | None = None
    """The model's tokenizer.json, to count prompts before a run. Default: 4 bytes a token."""
    budget: Budget = Budget()
    """What all runs into the folder may use together."""

    def violations(self) -> Iterator[Violation]:
        """A cost needs prices, and each task is named once."""
        if self.budget.max_cost is not None and self.prices is None:
            yield Violation(
                "budget.maxCost", self.budget.max_cost, "needs prices to be compared with",
                "Set prices, or leave it out.", ("prices",),
            )  # fmt: skip
        for index, task in enumerate(self.tasks):
            if task in self.tasks[:index]:
                yield Violation(
                    f"tasks[{index}]", str(task), "is named twice", "Remove one.", ("tasks",)
                )
