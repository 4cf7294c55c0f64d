"""The `Reranker` kind: a model that scores documents against a query."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from embedfleet.messages import Role
from embedfleet.prompts import RERANKER_TEMPLATE
from embedfleet.resources.base import API_VERSION, ObjectName, Part, Resource, Violation
from embedfleet.resources.shared import ModelSpec, TokenLimit, Weights, model_violations

__all__ = [
    "Reranker",
    "RerankerQuantization",
    "RerankerSpec",
    "RerankerVerification",
    "Template",
]


class Template(StrEnum):
    """Prompt around query and document, and how its answer becomes a score."""

    QWEN3_RERANKER = RERANKER_TEMPLATE


class RerankerQuantization(Part):
    """Number type of the weights."""

    weights: Weights = Weights.AUTO
    """Type in which weights are held. `auto`: bfloat16 where the machine is fast at it."""


class RerankerVerification(Part):
    """How golden documents must be ranked before a replica takes traffic."""

    min_rank_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.9
    """Rank correlation (Kendall's tau-b) with the golden order that must be reached."""
    golden_config_map_name: ObjectName | None = None
    """ConfigMap of golden scores. None: recorded at first. Not used on a laptop."""

    @property
    def bound(self) -> float:
        """What a replica must reach."""
        return self.min_rank_agreement


class RerankerSpec(ModelSpec):
    """Which checkpoint is served, how, where and by how many replicas."""

    role: ClassVar[Role] = Role.RERANKER

    template: Template = Template.QWEN3_RERANKER
    """Prompt around query and document."""
    quantization: RerankerQuantization = RerankerQuantization()
    """Number type of the weights."""
    max_pair_tokens: TokenLimit | None = None
    """Longest query with document in tokens, prompt included. Default: the model's own limit."""
    verification: RerankerVerification = RerankerVerification()
    """How golden documents must be ranked before a replica takes traffic."""

    def violations(self) -> Iterator[Violation]:
        """The checkpoint fits the role and its weights' type."""
        yield from model_violations(self, self.quantization.weights)


class Reranker(Resource):
    """A model that scores documents against a query."""

    api_version: Literal["embedfleet.io/v1alpha1"] = API_VERSION
    """Schema of this resource."""
    kind: Literal["Reranker"] = "Reranker"
    """Always Reranker."""
    spec: RerankerSpec
    """What is wanted."""
