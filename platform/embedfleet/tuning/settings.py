"""What `tune.yaml` says, as one value, or everything that is wrong with it.

Strict fields, camelCase outside and snake_case inside, as in manifests, and in their words.
Folders and files are relative to where the command runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field

from embedfleet.errors import InvalidManifest, Problem
from embedfleet.messages import Role
from embedfleet.resources.base import Part, Violation
from embedfleet.resources.problems import judge
from embedfleet.tuning.documents import lay_over, only_document
from embedfleet.tuning.sections import (
    Batch,
    Checkpoints,
    ContrastiveLoss,
    DataFile,
    Dtype,
    EmbedderSequence,
    Lora,
    ModelSource,
    Optimizer,
    Output,
    RerankerSequence,
    Sampling,
    Schedule,
    Workers,
)

__all__ = ["EmbedderSettings", "RerankerSettings", "TuneSettings", "read_settings"]


class TuneSettings(Part):
    """What both roles have in common."""

    role: ClassVar[Role]

    model: ModelSource
    """Where training starts."""
    output: Output
    """Where it leaves what it makes."""
    data: Annotated[tuple[DataFile, ...], Field(min_length=1, max_length=1000)]
    """What is learnt from."""
    sampling: Sampling = Sampling()
    """How batches are drawn."""
    batch: Batch = Batch()
    """How much a step sees."""
    optimizer: Optimizer = Optimizer()
    """How weights move."""
    schedule: Schedule
    """How long."""
    precision: Dtype = Dtype.FLOAT32
    """Type that the model computes in; weights that are trained stay float32."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again for their gradients, to save memory."""
    lora: Lora | None = None
    """Adapters instead of all weights; `freeze` and a rate for embeddings have no place then."""
    freeze: tuple[str, ...] = ()
    """Beginnings of names of weights that stay as they are, such as `embed_tokens`."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept on the way."""
    workers: Workers = Workers()
    """Who trains."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of sampling and of dropout."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of each worker. Default: its cores."""

    def violations(self) -> Iterator[Violation]:
        """Workers share a batch out evenly; beside adapters nothing is trained."""
        size, count = self.batch.size, self.workers.count
        if size % count:
            near = [each for each in (size // count * count, (size // count + 1) * count) if each]
            yield Violation(
                "batch.size", size, f"must be a multiple of workers.count, which is {count}",
                f"Take {' or '.join(map(str, near))}, or change workers.count.",
                ("workers.count",),
            )  # fmt: skip
        if self.lora is not None:
            rate = self.optimizer.embedding_learning_rate
            rest = "stands beside lora, which trains adapters only and leaves all else as it is"
            if self.freeze:
                names = ", ".join(self.freeze)
                yield Violation("freeze", names, rest, "Keep one of them.", ("lora",))
            if rate is not None:
                field = "optimizer.embeddingLearningRate"
                yield Violation(field, rate, rest, "Keep one of them.", ("lora",))


class EmbedderSettings(TuneSettings):
    """`embedfleet tune embedder`."""

    role: ClassVar[Role] = Role.EMBEDDER

    sequence: EmbedderSequence = EmbedderSequence()
    """What is read of a text."""
    loss: ContrastiveLoss = ContrastiveLoss()
    """What is made small."""


class RerankerSettings(TuneSettings):
    """`embedfleet tune reranker`."""

    role: ClassVar[Role] = Role.RERANKER

    sequence: RerankerSequence = RerankerSequence()
    """What is read of a pair."""


_KINDS: Final[Mapping[Role, type[TuneSettings]]] = {
    Role.EMBEDDER: EmbedderSettings,
    Role.RERANKER: RerankerSettings,
}


def read_settings(
    path: Path, role: Role, overrides: Mapping[str, object] | None = None
) -> EmbedderSettings | RerankerSettings:
    """Read `tune.yaml`.

    Args:
        path: The file.
        role: Of the model; it decides which fields there are.
        overrides: Values by field path, such as `loss.temperature`.

    Raises:
        InvalidManifest: Everything that is wrong with it.
        InvalidRequest: An override names a field inside a value.
        OSError: It cannot be read.
    """
    document = only_document(path)
    for field, value in (overrides or {}).items():
        lay_over(document.content, field, value)
    judged = judge(_KINDS[role], document)
    if isinstance(judged, EmbedderSettings | RerankerSettings):
        return judged
    raise InvalidManifest.of(tuple(each for each in judged if isinstance(each, Problem)))
