"""The `Embedder` kind: a model that turns texts into vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from embedfleet.catalog import MIN_DIMENSION
from embedfleet.messages import OutputType, Role
from embedfleet.resources.base import API_VERSION, ObjectName, Part, Resource, Violation
from embedfleet.resources.model_source import MODEL_CHOICE
from embedfleet.resources.shared import (
    ModelSpec,
    TokenLimit,
    Weights,
    model_violations,
)

__all__ = ["Embedder", "EmbedderQuantization", "EmbedderSpec", "EmbedderVerification"]

Dimension = Annotated[int, Field(ge=MIN_DIMENSION, le=16_384)]


class EmbedderQuantization(Part):
    """Number types of weights and of what is returned."""

    weights: Weights = Weights.AUTO
    """Type in which weights are held. `auto`: bfloat16 where the machine is fast at it."""
    output: OutputType = OutputType.FLOAT32
    """Element type of a vector when the request names none."""


class EmbedderVerification(Part):
    """What golden texts must give before a replica takes traffic."""

    min_cosine: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Cosine to its golden vector that every text must reach."""
    golden_config_map_name: ObjectName | None = None
    """ConfigMap of golden vectors. None: recorded at first. Not used on a laptop."""

    @property
    def bound(self) -> float:
        """What a replica must reach."""
        return self.min_cosine


class EmbedderSpec(ModelSpec):
    """Which checkpoint is served, how, where and by how many replicas."""

    role: ClassVar[Role] = Role.EMBEDDER

    dimension: Dimension | None = None
    """Dimension of a vector when the request names none. Default: the model's native one."""
    allowed_dimensions: Annotated[tuple[Dimension, ...], Field(max_length=64)] = ()
    """If not empty, the only dimensions that a request may name."""
    quantization: EmbedderQuantization = EmbedderQuantization()
    """Number types of weights and of what is returned."""
    max_tokens: TokenLimit | None = None
    """Longest text in tokens, prompt included. Default: the model's own limit."""
    verification: EmbedderVerification = EmbedderVerification()
    """What golden texts must give before a replica takes traffic."""

    def violations(self) -> Iterator[Violation]:
        """Dimensions that the model has and that agree with each other."""
        yield from model_violations(self, self.quantization.weights)
        known = self.published
        native = known.native_dimension if known else None
        for index, dimension in enumerate(self.allowed_dimensions):
            path = f"allowedDimensions[{index}]"
            if dimension in self.allowed_dimensions[:index]:
                yield Violation(path, dimension, "is listed twice", "Remove one of the two.")
            if native is not None and dimension > native:
                yield _above(path, dimension, native)
        if self.dimension is not None and native is not None and self.dimension > native:
            yield _above("dimension", self.dimension, native)
        output = self.quantization.output
        if self.dimension is not None and self.dimension % 8 and output.packs_bits:
            yield Violation(
                "dimension", self.dimension,
                f"must be a multiple of 8: {output} packs eight components to a byte",
                f"Set {self.dimension - self.dimension % 8}, or another quantization.output.",
                ("quantization.output",),
            )  # fmt: skip
        default = self.dimension if self.dimension is not None else native
        if (
            self.allowed_dimensions
            and default is not None
            and default not in self.allowed_dimensions
        ):
            yield Violation(
                "allowedDimensions", list(self.allowed_dimensions),
                f"must contain the default dimension, {default}",
                "Add it, or set dimension to one that is listed.", ("dimension", *MODEL_CHOICE),
            )  # fmt: skip


def _above(path: str, dimension: int, native: int) -> Violation:
    return Violation(
        path, dimension, f"must be between {MIN_DIMENSION} and the model's native {native}",
        "Lower it, or choose a larger model.", MODEL_CHOICE,
    )  # fmt: skip


class Embedder(Resource):
    """A model that turns texts into vectors."""

    api_version: Literal["embedfleet.io/v1alpha1"] = API_VERSION
    """Schema of this resource."""
    kind: Literal["Embedder"] = "Embedder"
    """Always Embedder."""
    spec: EmbedderSpec
    """What is wanted."""
