"""How a run is shown: what it would do, a bar on the way, a picture of the loss at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from embedfleet.messages import Role
from embedfleet.tuning.preparing import prepare
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings
from embedfleet.tuning.watching import Metrics, read_metrics

__all__ = ["Progress", "describe", "plot_loss", "summary"]

Settings = EmbedderSettings | RerankerSettings

PLOT_FILE: Final = "loss.png"
_LOGGED_STEPS: Final = 20
"""Without a terminal, a line for so many steps."""


class Progress:
    """Shows a run on the terminal, or as lines where there is none."""

    def __init__(self, settings: Settings) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bars.add_task(f"tune {settings.role}", total=None, numbers="")
        self._recent: list[Metrics] = []

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def began(self, done: int, num_steps: int, whole_tokens: int) -> None:
        """Say where the run goes on."""
        self._bars.update(self._task, total=num_steps, completed=done)
        if done:
            self._console.print(f"goes on after step {done} of {num_steps}")

    def stepped(self, metrics: Metrics) -> None:
        """Move the bar, or print a line from time to time."""
        self._recent = [*self._recent[-(_LOGGED_STEPS - 1) :], metrics]
        numbers = _numbers(self._recent)
        self._bars.update(self._task, completed=metrics.step, numbers=numbers)
        due = metrics.step % _LOGGED_STEPS == 0 or metrics.step in (1, metrics.num_steps)
        if self._bars.disable and due:
            left = (metrics.num_steps - metrics.step) * sum(m.seconds for m in self._recent)
            left /= len(self._recent)
            self._console.print(
                f"step {metrics.step}/{metrics.num_steps}  {numbers}  {left:,.0f} s left",
                soft_wrap=True,
            )

    def saved(self, folder: Path) -> None:
        """Name a checkpoint."""
        self._console.print(f"saved {folder}", soft_wrap=True)


def _numbers(recent: Sequence[Metrics]) -> str:
    """Sum up the last steps."""
    loss = sum(m.loss for m in recent) / len(recent)
    speed = sum(m.tokens for m in recent) / max(1e-9, sum(m.seconds for m in recent))
    padding = sum(m.padding_share for m in recent) / len(recent)
    rate = recent[-1].learning_rate
    return f"loss {loss:.4f}  rate {rate:.2e}  {speed:,.0f} tokens/s  padding {padding:.1%}"


def describe(settings: Settings) -> Iterator[str]:
    """Check everything that can be checked before training, and say what would be done."""
    prepared = prepare(settings)
    corpus, plan = prepared.corpus, prepared.plan
    parameters = list(prepared.model.parameters())
    trained = sum(each.numel() for each in parameters if each.requires_grad)
    yield (
        f"model: {prepared.checkpoint.folder}, {sum(p.numel() for p in parameters):,} parameters, "
        f"{trained:,} of them trained"
    )
    yield f"data: {len(corpus):,} examples in {len(corpus.files)} files"
    for group, steps in zip(corpus.groups, plan.group_steps.tolist(), strict=True):
        size = min(settings.batch.size, len(group.rows))
        yield (
            f"  {corpus.sources[group.source].path} {group.task}/{group.language}: "
            f"{len(group.rows):,} examples, {steps:,} steps of {size}, "
            f"{steps * size / len(group.rows):.2f} epochs"
        )
    batch = prepared.batches.batch(0)
    yield (
        f"steps: {plan.num_steps:,}; the first one has {len(batch.sequences):,} sequences, "
        f"{batch.num_tokens:,} tokens, {batch.num_truncated} sequences cut to their limit"
    )
    yield f"output: {Path(settings.output.folder).absolute()}"


def plot_loss(folder: Path) -> Path | None:
    """Draw the loss over the steps into a picture; None if there is nothing to draw."""
    records = read_metrics(folder)
    if not records:
        return None
    from matplotlib.figure import Figure

    steps = [record["step"] for record in records]
    losses = [record["loss"] for record in records]
    width = max(1, len(losses) // 50)
    means = [
        sum(losses[max(0, i - width + 1) : i + 1]) / len(losses[max(0, i - width + 1) : i + 1])
        for i in range(len(losses))
    ]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=0.6, alpha=0.35, color="tab:blue")
    axes.plot(steps, means, linewidth=1.6, color="tab:blue", label=f"loss, mean of {width}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    rates = axes.twinx()
    rates.plot(steps, [r["learning_rate"] for r in records], color="tab:grey", linestyle="--")
    rates.set_ylabel("learning rate")
    axes.legend(loc="upper right")
    file = folder / PLOT_FILE
    figure.savefig(file, dpi=120)
    return file


def summary(settings: Settings, model: Path) -> Iterator[str]:
    """Say what came out and what to do with it."""
    folder = Path(settings.output.folder)
    records = read_metrics(folder)
    if records:
        last = records[-max(1, len(records) // 20) :]
        seconds = sum(record["seconds"] for record in records)
        tokens = sum(record["tokens"] for record in records)
        padding = sum(record["padding_share"] for record in records) / len(records)
        yield (
            f"{len(records):,} steps in {seconds:,.0f} s, {tokens / max(seconds, 1e-9):,.0f} "
            f"tokens/s, padding {padding:.1%}; loss {records[0]['loss']:.4f} at first, "
            f"{sum(record['loss'] for record in last) / len(last):.4f} at last"
        )
    if (picture := plot_loss(folder)) is not None:
        yield f"loss: {picture}"
    yield f"model: {model}"
    if settings.role is Role.EMBEDDER:
        yield f"next: embedfleet evaluate --model {model} --data FOLDER"
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    if len(checkpoints) > 1:
        yield f"next: embedfleet merge {folder}/checkpoints/step-* --output {folder}/merged"
