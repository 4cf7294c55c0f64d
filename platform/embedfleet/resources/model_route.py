"""The `ModelRoute` kind: a logical name and the rules that lead each request to a model.

Rules are tried in order and the first whose conditions all hold decides. What a request looks like
is the router's matter; here is only what can be said, and which sayings contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from embedfleet.catalog import MAX_TOKENS
from embedfleet.resources.base import API_VERSION, Alias, Name, Part, Resource, Violation
from embedfleet.resources.shared import alias_violations

__all__ = [
    "Conditions",
    "Load",
    "ModelRoute",
    "ModelRouteSpec",
    "RouteRule",
    "Shadow",
    "Stage",
    "Target",
    "TargetKind",
]

Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class TargetKind(StrEnum):
    """Kind of every model that a route leads to."""

    EMBEDDER = "Embedder"
    RERANKER = "Reranker"


class Load(Part):
    """How busy a model must be."""

    model: Name
    """Model whose queue is looked at."""
    wait_above_seconds: Annotated[float, Field(ge=0.01, le=3600)]
    """Predicted wait in that queue from which on the condition holds."""


class Conditions(Part):
    """What must hold of a request, all of it."""

    tiers: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    """Tiers of which the request names one. None: any request."""
    min_tokens: Tokens | None = None
    """Tokens that the request's longest item has at least."""
    max_tokens: Tokens | None = None
    """Tokens that the request's longest item has at most."""
    load: Load | None = None
    """How busy a model must be."""

    def violations(self) -> Iterator[Violation]:
        """Something is asked, once, and can be met."""
        for index, tier in enumerate(self.tiers):
            if tier in self.tiers[:index]:
                yield Violation(
                    f"tiers[{index}]", tier, "is listed twice", "Remove one of the two.", ("tiers",)
                )
        if not self.tiers and not self.load and (self.min_tokens, self.max_tokens) == (None, None):
            yield Violation(
                "tiers", "missing", "a condition is needed",
                "Set tiers, minTokens, maxTokens or load, or leave out when.",
                ("minTokens", "maxTokens", "load"),
            )  # fmt: skip
        low, high = self.min_tokens, self.max_tokens
        if low is not None and high is not None and high < low:
            yield Violation(
                "maxTokens", high, f"must be at least minTokens, {low}",
                "Raise it or lower minTokens.", ("minTokens",),
            )  # fmt: skip


class Target(Part):
    """A model that answers, and how often."""

    model: Name
    """Name of an Embedder or Reranker, whichever targetKind says."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Share of the requests, relative to the rule's other targets."""


class Shadow(Part):
    """A model that is sent copies of requests; its answers are measured and thrown away."""

    model: Name
    """Name of an Embedder or Reranker, whichever targetKind says."""
    percent: Annotated[float, Field(ge=0.01, le=100)] = 100
    """Share of the requests that are copied."""


class Stage(Part):
    """One step of a cascade."""

    model: Name
    """Name of a Reranker."""
    keep: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Best documents that go on to the next stage. The last stage has none."""


class RouteRule(Part):
    """Which requests, and where they go."""

    name: Name
    """Name in metrics and messages."""
    when: Conditions | None = None
    """What must hold of a request. Left out: nothing, so every request that gets here."""
    targets: Annotated[tuple[Target, ...], Field(max_length=16)] = ()
    """Models that answer, each by its weight. Or give `cascade`."""
    cascade: Annotated[tuple[Stage, ...], Field(max_length=4)] = ()
    """Rerankers that each narrow down the documents for the next."""
    shadow: Shadow | None = None
    """A model that is sent copies."""

    def violations(self) -> Iterator[Violation]:
        """Targets or a cascade; no model twice; a cascade narrows down."""
        if bool(self.targets) == bool(self.cascade):
            yield Violation(
                "targets", f"{len(self.targets)} targets and {len(self.cascade)} stages",
                "a rule needs either targets or a cascade", "Set one of the two.", ("cascade",),
            )  # fmt: skip
        for field, names in (
            ("targets", [each.model for each in self.targets]),
            ("cascade", [each.model for each in self.cascade]),
        ):
            for index, name in enumerate(names):
                if name in names[:index]:
                    yield Violation(
                        f"{field}[{index}].model", name, "is named twice in this rule",
                        "Remove one of the two.", (field,),
                    )  # fmt: skip
        if self.shadow and self.shadow.model in {each.model for each in self.answering}:
            yield Violation(
                "shadow.model", self.shadow.model, "answers in this rule already",
                "Choose another.", ("targets", "cascade"),
            )  # fmt: skip
        yield from self._narrowing()

    def _narrowing(self) -> Iterator[Violation]:
        if len(self.cascade) == 1:
            yield Violation(
                "cascade", "1 stage", "a cascade has at least 2",
                "Add one, or make the model a target.",
            )  # fmt: skip
            return
        for index, stage in enumerate(self.cascade):
            path, last = f"cascade[{index}].keep", index == len(self.cascade) - 1
            before = self.cascade[index - 1].keep if index else None
            if last and stage.keep is not None:
                yield Violation(
                    path, stage.keep, "has no meaning in the last stage", "Leave it out.",
                    ("cascade",),
                )  # fmt: skip
            elif not last and stage.keep is None:
                yield Violation(
                    path, "missing", "is needed in every stage but the last", "Set it.",
                    ("cascade",),
                )  # fmt: skip
            elif stage.keep is not None and before is not None and stage.keep >= before:
                yield Violation(
                    path, stage.keep, f"must be below the stage before, {before}", "Lower it.",
                    ("cascade",),
                )  # fmt: skip

    @property
    def answering(self) -> tuple[Target | Stage, ...]:
        """Targets or stages, whichever the rule has."""
        return (*self.targets, *self.cascade)

    def mentions(self) -> Iterator[tuple[str, str]]:
        """Yield every model that the rule names, after the field that does."""
        field = "targets" if self.targets else "cascade"
        for index, each in enumerate(self.answering):
            yield f"{field}[{index}].model", each.model
        if self.shadow:
            yield "shadow.model", self.shadow.model
        if self.when and self.when.load:
            yield "when.load.model", self.when.load.model


class ModelRouteSpec(Part):
    """A logical name's rules."""

    fleet: Name | None = None
    """Fleet that answers to the name. Left out, the oldest of the namespace does."""
    aliases: Annotated[tuple[Alias, ...], Field(max_length=32)] = ()
    """More names that clients may use."""
    target_kind: TargetKind
    """Kind of every model that the rules lead to."""
    mixed_contracts: bool = False
    """Whether rules may lead to embedders of different vector spaces, which do not compare."""
    rules: Annotated[tuple[RouteRule, ...], Field(min_length=1, max_length=32)]
    """Tried in order; the first that fits decides. The last one fits every request."""

    def violations(self) -> Iterator[Violation]:
        """Every request meets a rule, every rule a request; embedders are not cascaded."""
        yield from alias_violations(self.aliases)
        names = [rule.name for rule in self.rules]
        last = len(self.rules) - 1
        for index, rule in enumerate(self.rules):
            path = f"rules[{index}]"
            if rule.name in names[:index]:
                yield Violation(
                    f"{path}.name", rule.name, "is the name of an earlier rule",
                    "Rename one of the two.", ("rules",),
                )  # fmt: skip
            if rule.when is None and index < last:
                yield Violation(
                    f"{path}.when", "missing", "only the last rule fits every request",
                    "Set it, or move the rule to the end.", ("rules",),
                )  # fmt: skip
            if rule.cascade and self.target_kind is TargetKind.EMBEDDER:
                yield Violation(
                    f"{path}.cascade", f"{len(rule.cascade)} stages", "only rerankers narrow down",
                    "Use targets: vectors of two models do not compare.", ("targetKind",),
                )  # fmt: skip
        if self.rules[last].when is not None:
            yield Violation(
                f"rules[{last}].when", "set", "the last rule must fit every request",
                "Leave it out, or add a rule without it.", ("rules",),
            )  # fmt: skip
        if self.mixed_contracts and self.target_kind is TargetKind.RERANKER:
            yield Violation(
                "mixedContracts", "true", "has no meaning for rerankers", "Leave it out.",
                ("targetKind",),
            )  # fmt: skip


class ModelRoute(Resource):
    """A logical name that leads each request to a model."""

    api_version: Literal["embedfleet.io/v1alpha1"] = API_VERSION
    """Schema of this resource."""
    kind: Literal["ModelRoute"] = "ModelRoute"
    """Always ModelRoute."""
    spec: ModelRouteSpec
    """What is wanted."""
