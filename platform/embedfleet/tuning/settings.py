"""What `tune.yaml` says, as one value, or everything that is wrong with it.

Strict fields, camelCase outside and snake_case inside, as in manifests, and in their words.
Folders and files are relative to where the command runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import yaml
from pydantic import Field

from embedfleet.errors import InvalidManifest, InvalidRequest, Problem
from embedfleet.messages import Role
from embedfleet.resources.base import Part
from embedfleet.resources.documents import Document, read_documents
from embedfleet.resources.problems import judge
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

# YAML 1.1 takes a number with an exponent and no point for text.
_EXPONENT: Final = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


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
    """Adapters instead of all weights."""
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
    path: Path, role: Role, overrides: Mapping[str, str] | None = None
) -> EmbedderSettings | RerankerSettings:
    """Read `tune.yaml`.

    Args:
        path: The file.
        role: Of the model; it decides which fields there are.
        overrides: Values by field path, such as `loss.temperature`, written as in YAML.

    Raises:
        InvalidManifest: Everything that is wrong with it.
        OSError: It cannot be read.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{path} is not UTF-8 at byte {error.start}. Save it as UTF-8."
        ) from error
    documents = list(read_documents(str(path), text))
    problems = tuple(each for each in documents if isinstance(each, Problem))
    if problems:
        raise InvalidManifest.of(problems)
    if len(documents) != 1:
        raise InvalidRequest(
            f"{path} holds {len(documents)} YAML documents; settings are exactly one. Write them "
            "without `---` between."
        )
    document = documents[0]
    if isinstance(document, Problem):  # pragma: no cover - raised above
        raise InvalidManifest.of((document,))
    content = _numbers(document.content)
    for field, value in (overrides or {}).items():
        _override(content, field, value)
    judged = judge(_KINDS[role], Document(str(path), document.number, content))
    if isinstance(judged, EmbedderSettings | RerankerSettings):
        return judged
    raise InvalidManifest.of(tuple(each for each in judged if isinstance(each, Problem)))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _override(content: Any, field: str, value: str) -> None:
    """Set one field by its path; sections that are not there are made."""
    *sections, last = field.split(".")
    for section in sections:
        if not isinstance(content, dict) or not isinstance(content.setdefault(section, {}), dict):
            raise InvalidRequest(
                f"--set {field}: {section} is not a section of fields. Change the file instead."
            )
        content = content[section]
    if not isinstance(content, dict) or not last:
        raise InvalidRequest(f"--set {field}={value}: no field. Write --set section.field=value.")
    try:
        content[last] = _numbers(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise InvalidRequest(f"--set {field}: {value} is not YAML ({error}). Quote it.") from error
