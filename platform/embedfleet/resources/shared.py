"""Parts that embedders and rerankers have in common.

Bounds are wide enough for any machine and narrow enough to catch a slip of the hand. Every default
is written here once and is right for a laptop.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Final
from unicodedata import category

from pydantic import Field

from embedfleet.catalog import DEFAULT_INSTRUCTION, MAX_TOKENS, PublishedModel
from embedfleet.messages import Role
from embedfleet.resources.base import RESERVED_NAMES, Alias, Name, Part, Violation, repetitions
from embedfleet.resources.model_source import (
    MODEL_CHOICE,
    ModelSource,
    cached_folder,
    source_violations,
    unpinned,
)

__all__ = [
    "Backend",
    "Batching",
    "Instruction",
    "ModelSpec",
    "Placement",
    "Rollout",
    "Scaling",
    "TokenLimit",
    "Weights",
    "alias_violations",
    "model_violations",
]


_BLANK: Final = frozenset({"Zs", "Zl", "Zp", "Cc"})
"""Categories of characters that say nothing: separators and controls."""


class Weights(StrEnum):
    """Type in which weights are held; `auto` is resolved by the machine that loads them."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Backend(StrEnum):
    """What runs the model. `echo` runs none: it measures what surrounds an engine."""

    TORCH = "torch"
    ECHO = "echo"


class Instruction(Part):
    """What queries are told to look for."""

    default: Annotated[str, Field(max_length=4096)] = DEFAULT_INSTRUCTION
    """Instruction of a query that brings none."""
    allow_override: bool = True
    """Whether a request may bring its own instruction."""

    def violations(self) -> Iterator[Violation]:
        """The model was trained with an instruction, so a query without one is refused."""
        if all(category(character) in _BLANK for character in self.default):
            yield Violation(
                "default", repr(self.default), "must be text: queries without one are refused",
                "Write what queries look for, or leave it out for the usual one.",
            )  # fmt: skip


class Batching(Part):
    """Limits of one replica's batcher."""

    max_batch_tokens: Annotated[int, Field(ge=64, le=16_777_216)] | None = None
    """Tokens in one bulk step, or twice those of a reranker's query where that is more. Default:
    chosen by the device."""
    max_queued_tokens: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 1_000_000
    """Tokens that may wait, a reranker's query counted once a step; more is refused with a retry
    hint."""
    max_queued_items: Annotated[int, Field(ge=1, le=10_000_000)] = 20_000
    """Sequences that may wait; more is refused with a retry hint."""
    max_items_per_request: Annotated[int, Field(ge=1, le=1_000_000)] = 2_048
    """Items or documents in one request."""

    def violations(self) -> Iterator[Violation]:
        """A step and a request must fit the queue."""
        if self.max_batch_tokens is not None and self.max_batch_tokens > self.max_queued_tokens:
            yield Violation(
                "maxBatchTokens", self.max_batch_tokens,
                f"must be at most maxQueuedTokens, {self.max_queued_tokens}",
                "Raise maxQueuedTokens or lower it.", ("maxQueuedTokens",),
            )  # fmt: skip
        if self.max_items_per_request > self.max_queued_items:
            yield Violation(
                "maxItemsPerRequest", self.max_items_per_request,
                f"must be at most maxQueuedItems, {self.max_queued_items}",
                "Raise maxQueuedItems or lower it.", ("maxQueuedItems",),
            )  # fmt: skip


class Placement(Part):
    """Where replicas run and what each of them is given."""

    pools: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    """Pools of the fleet, best first. Default: its first pool."""
    gpu_fraction: Annotated[float, Field(ge=0.01, le=1)] | None = None
    """Share of one GPU. Default: a whole GPU in a GPU pool, none elsewhere."""
    cpus: Annotated[float, Field(ge=0.1, le=256)] = 1
    """CPU cores of one replica."""

    def violations(self) -> Iterator[Violation]:
        """Each pool is named once."""
        for index, pool in enumerate(self.pools):
            if pool in self.pools[:index]:
                yield Violation(
                    f"pools[{index}]", pool, "is named twice", "Remove one of the two.", ("pools",)
                )


class Scaling(Part):
    """How many replicas, and when their number changes."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas kept without traffic; 0 lets the first request wait for a start."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Replicas at most. Default: minReplicas, or 1 if that is 0."""
    target_ongoing_requests: Annotated[float, Field(ge=0.1, le=100_000)] = 32
    """Requests queued or running in one replica that autoscaling aims at."""
    upscale_delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 5
    """How long load must stay above the target before replicas are added."""
    downscale_delay_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300
    """How long load must stay below the target before replicas are removed."""

    def violations(self) -> Iterator[Violation]:
        """The range is the right way up."""
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            yield Violation(
                "maxReplicas", self.max_replicas,
                f"must be at least minReplicas, {self.min_replicas}",
                "Raise it or lower minReplicas.", ("minReplicas",),
            )  # fmt: skip

    @property
    def resolved_max_replicas(self) -> int:
        """The upper bound, default worked out."""
        return self.max_replicas if self.max_replicas is not None else max(self.min_replicas, 1)


class Rollout(Part):
    """How replicas are replaced, watched and stopped."""

    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Extra replicas during a replacement: above 0 no call waits, but they need room."""
    graceful_shutdown_seconds: Annotated[float, Field(ge=35, le=3600)] = 40
    """Time for running requests when a replica stops; the proxies need 35 s to forget it."""
    health_check_period_seconds: Annotated[float, Field(ge=1, le=300)] = 5
    """How often a replica is asked whether its engine lives."""


class ModelSpec(Part):
    """What the specs of embedders and rerankers share."""

    role: ClassVar[Role]

    fleet: Name | None = None
    """Fleet that serves the model. Left out, the oldest of the namespace does."""
    aliases: Annotated[tuple[Alias, ...], Field(max_length=32)] = ()
    """More names that clients may use. The hub name works without being listed."""
    model: ModelSource
    """The checkpoint."""
    instruction: Instruction = Instruction()
    """What queries are told to look for."""
    backend: Backend = Backend.TORCH
    """What runs the model."""
    batching: Batching = Batching()
    """Limits of one replica's batcher."""
    placement: Placement = Placement()
    """Where replicas run and what each of them is given."""
    scaling: Scaling = Scaling()
    """How many replicas, and when their number changes."""
    rollout: Rollout = Rollout()
    """How replicas are replaced, watched and stopped."""

    @property
    def published(self) -> PublishedModel | None:
        """The published model that this names, if it is one."""
        return self.model.published(self.role)

    @property
    def source(self) -> str:
        """What to load; published names are spelled as published, a cache alone is its folder."""
        known = self.published
        return known.source if known else self.model.source or self.folder

    @property
    def revision(self) -> str:
        """The commit to load; empty for a local source."""
        known = self.published
        return self.model.revision or (known.revision if known else "")

    @property
    def folder(self) -> str:
        """Where the files lie; empty unless a ModelCache holds them."""
        return cached_folder(self.model.cache) if self.model.cache else ""


TokenLimit = Annotated[int, Field(ge=16, le=MAX_TOKENS)]
"""A sequence limit: the reranker's frame alone is dozens of tokens, so less than 16 is a slip."""


def alias_violations(aliases: tuple[str, ...]) -> Iterator[Violation]:
    """Yield aliases that are listed twice or that the fleet uses itself."""
    yield from repetitions("aliases", aliases)
    for index, alias in enumerate(aliases):
        if alias in RESERVED_NAMES:
            path = f"aliases[{index}]"
            yield Violation(path, alias, "is reserved for the fleet itself", "Choose another.")


def model_violations(spec: ModelSpec, weights: Weights) -> Iterator[Violation]:
    """Yield what is wrong between a role, its checkpoint, the weights' type and the aliases."""
    yield from alias_violations(spec.aliases)
    yield from source_violations(spec.model)
    source, own = spec.model.source or "", f"embedded/{spec.role}"
    if source.startswith("embedded/") and source != own:
        yield Violation(
            "model.source", source, f"is no {spec.role} that comes with embedfleet",
            f"Name {own}.",
        )  # fmt: skip
    known = spec.published
    if known is None:
        return
    if known.role is not spec.role:
        yield Violation(
            "model.source", known.source, f"is a published {known.role}, not {_a(spec.role)}",
            f"Declare it as kind {known.role.capitalize()}, or name {_a(spec.role)}.",
        )  # fmt: skip
    if known.float16_overflows and weights is Weights.FLOAT16:
        yield Violation(
            "quantization.weights", str(weights), f"overflows to NaN on {known.source}",
            "Use bfloat16 or float32.", MODEL_CHOICE,
        )  # fmt: skip
    if not spec.model.revision and not known.revision:
        yield unpinned(known.source)


def _a(role: Role) -> str:
    return f"{'an' if role is Role.EMBEDDER else 'a'} {role}"
