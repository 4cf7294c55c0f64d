"""What a run tells of itself: numbers of every step, to who watches and to a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

__all__ = ["METRICS_FILE", "Metrics", "Watcher", "cut_metrics", "metrics_line", "read_metrics"]

METRICS_FILE: Final = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Metrics:
    """One step, as it is reported and kept.

    Attributes:
        step: From 1.
        tokens: Without padding, of this worker.
        padding_share: Padding's part of what passed through the model.
        seconds: From the step before to this one.
        truncated: Sequences that lost their end.
        cached: Gradients were cached.
    """

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    padding_share: float
    seconds: float
    truncated: int
    cached: bool


class Watcher(Protocol):
    """Who is told how a run goes."""

    def began(self, done: int, num_steps: int, whole_tokens: int) -> None:
        """Steps done before, and steps in all."""

    def stepped(self, metrics: Metrics) -> None:
        """A step is done."""

    def saved(self, folder: Path) -> None:
        """A checkpoint is whole."""


def metrics_line(metrics: Metrics) -> str:
    """Write a step as a line of the metrics' file."""
    return json.dumps(asdict(metrics)) + "\n"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the steps of a run; the line that a kill cut off is left out."""
    file = folder / METRICS_FILE
    if not file.is_file():
        return []
    found = []
    for line in file.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        found.append(json.loads(line))
    return found


def cut_metrics(folder: Path, step: int) -> None:
    """Drop what was reported of steps after the checkpoint: they are taken again."""
    kept = [record for record in read_metrics(folder) if record["step"] <= step]
    if (folder / METRICS_FILE).is_file():
        (folder / METRICS_FILE).write_text("".join(json.dumps(each) + "\n" for each in kept))
