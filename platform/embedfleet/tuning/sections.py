"""The sections of `tune.yaml`: each field with its bounds, its default and its reason.

Each default is written here once. They suit a small model on one machine; what depends on the
device or on the data, such as whether gradients are cached, is `auto` until the run begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.resources.base import Part, Violation

__all__ = [
    "Batch",
    "CacheGradients",
    "Checkpoints",
    "ContrastiveLoss",
    "DataFile",
    "Dimension",
    "Dtype",
    "EmbedderSequence",
    "Lora",
    "ModelSource",
    "Optimizer",
    "Output",
    "RerankerSequence",
    "Sampling",
    "Schedule",
    "Strategy",
    "Workers",
]

Tokens = Annotated[int, Field(ge=4, le=32_768)]
_Instruction = Annotated[str, Field(min_length=1, max_length=4096)]
_Label = Annotated[str, Field(min_length=1, max_length=64)]


class Dtype(StrEnum):
    """Element type of numbers."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class CacheGradients(StrEnum):
    """Whether a batch is computed twice in parts instead of once as a whole."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Strategy(StrEnum):
    """What several workers share out: `ddp` the batch, `fsdp` the weights as well."""

    DDP = "ddp"
    FSDP = "fsdp"


class ModelSource(Part):
    """The checkpoint that training starts from."""

    source: Annotated[str, Field(min_length=1)]
    """A folder, a `file://` address, `embedded/NAME`, or a hub name."""
    revision: str = ""
    """Commit of a hub source. Default: the one pinned for a published model."""


class Output(Part):
    """Where a run keeps what it makes."""

    folder: Annotated[str, Field(min_length=1)]
    """Holds metrics, checkpoints and, at the end, the model in `model/`."""
    dtype: Dtype = Dtype.FLOAT32
    """Element type of saved weights."""


class DataFile(Part):
    """One source of examples. Batches never mix two of them."""

    path: Annotated[str, Field(min_length=1)]
    """JSON Lines file, or a pattern such as `data/*.jsonl`."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1
    """How often it is sampled, times its share of all examples."""
    task: _Label | None = None
    """Replaces the task of its examples."""
    language: _Label | None = None
    """Replaces the language of its examples."""
    instruction: _Instruction | None = None
    """Instruction of examples that bring none."""


class Sampling(Part):
    """How batches are shared out between groups of one source, task and language."""

    temperature: Annotated[float, Field(ge=1, le=1e6)] = 1
    """1 samples each group by its number of batches n, higher ones by n^(1/temperature)."""


class EmbedderSequence(Part):
    """Limits of what an embedder reads."""

    max_query_tokens: Tokens = 256
    """Tokens of a query, with instruction and final token; longer ones lose their end."""
    max_document_tokens: Tokens = 512
    """Tokens of a document, with the final token; longer ones lose their end."""
    negatives: Annotated[int, Field(ge=0, le=1024)] = 4
    """Hard negatives taken of each example, at most."""
    instruction: _Instruction = DEFAULT_INSTRUCTION
    """Instruction of queries for which neither example nor source brings one."""


class RerankerSequence(Part):
    """Limits of what a reranker reads."""

    max_query_tokens: Tokens = 256
    """A query's own tokens; longer ones lose their end."""
    max_tokens: Annotated[int, Field(ge=96, le=32_768)] = 1024
    """Tokens of one pair with its prompt; longer documents lose their end."""
    negatives: Annotated[int, Field(ge=1, le=1024)] = 7
    """Negatives taken of each example, at most; missing ones are drawn from its batch."""
    instruction: _Instruction = DEFAULT_INSTRUCTION
    """Instruction of queries for which neither example nor source brings one."""


class Dimension(Part):
    """One length of vector that training makes usable."""

    dimension: Annotated[int, Field(ge=2, le=8192)]
    """Leading components that are kept."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1
    """Its share of the loss."""


class ContrastiveLoss(Part):
    """The contrastive loss (arXiv 2506.05176, section 3)."""

    temperature: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    """Cosines are divided by it."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.1
    """What is closer than the positive by more counts as a false negative and is left out."""
    matryoshka: Annotated[tuple[Dimension, ...], Field(max_length=32)] = ()
    """Dimensions that the loss is taken at. Default: the model's own only."""

    def violations(self) -> Iterator[Violation]:
        """Each dimension is named once."""
        seen: list[int] = []
        for index, each in enumerate(self.matryoshka):
            if each.dimension in seen:
                yield Violation(
                    f"matryoshka[{index}].dimension", each.dimension, "is named twice",
                    "Remove one of the two.", ("matryoshka",),
                )  # fmt: skip
            seen.append(each.dimension)


class Batch(Part):
    """What one step learns from."""

    size: Annotated[int, Field(ge=2, le=1_048_576)] = 256
    """Examples of a step, over all workers, who each take as many."""
    micro_batch_tokens: Annotated[int, Field(ge=64, le=4_194_304)] | None = None
    """Tokens, padding included, that pass through the model at once. Default: by the device."""
    cache_gradients: CacheGradients = CacheGradients.AUTO
    """`always` needs the memory of one micro-batch and a third more time; `auto` where needed."""


class Optimizer(Part):
    """AdamW."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Highest learning rate."""
    embedding_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """That of the embedding table. Default: learningRate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of matrices; vectors such as norms have none."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the mean of their squares."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1
    """Gradients are scaled down to this norm."""


class Schedule(Part):
    """How long, and how the learning rate moves: up in a line, down along a cosine."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Instead of steps: passes over the data."""
    warmup_share: Annotated[float, Field(ge=0, le=0.9)] = 0.05
    """Share of the steps in which the learning rate rises."""
    minimum_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the highest learning rate that the last step has."""

    def violations(self) -> Iterator[Violation]:
        """Either steps or epochs."""
        if self.steps is None and self.epochs is None:
            yield Violation("steps", "", "or epochs is required", "Set one of them.", ("epochs",))
        if self.steps is not None and self.epochs is not None:
            yield Violation(
                "steps", self.steps, "stands beside epochs", "Keep one of them.", ("epochs",)
            )


class Lora(Part):
    """Low-rank adapters: only they are trained, and merged into the weights that are saved."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0, le=65_536)] = 32
    """Adapters are scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that is left out at random."""
    targets: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    """Names of the linear layers that get one."""

    def violations(self) -> Iterator[Violation]:
        """Targets are layers of the model."""
        known = Lora.model_fields["targets"].default
        for index, name in enumerate(self.targets):
            if name not in known:
                yield Violation(
                    f"targets[{index}]", name, f"must be one of {', '.join(known)}",
                    "Choose one of them.", ("targets",),
                )  # fmt: skip


class Checkpoints(Part):
    """What is kept while a run goes on."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Steps between two checkpoints."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """The newest ones that stay; each is a model that can be served or merged, and the newest two
    keep what a run goes on from: 12 bytes for each number that is trained."""


class Workers(Part):
    """Processes that train together."""

    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """How many; one trains in the calling process."""
    cpus: Annotated[float, Field(ge=0.1, le=256)] = 1
    """CPU cores of each, of a Ray cluster."""
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None
    """GPUs of each. Default: one where there is one."""
    strategy: Strategy = Strategy.DDP
    """Whether each holds all the weights or a part."""
    address: str = ""
    """Ray cluster to join, such as `auto`. Default: one on this machine, for the run."""
