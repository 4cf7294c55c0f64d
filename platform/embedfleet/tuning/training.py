"""A run from its settings to a finished model: prepare, go on from the last checkpoint, learn.

The same function runs in the calling process and in every worker of a cluster; it knows a process
group if there is one, but not who started it. All that is drawn depends on the step alone, so a
run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch

from embedfleet.checkpoint import Checkpoint
from embedfleet.errors import InvalidRequest, TrainingStopped
from embedfleet.messages import Role
from embedfleet.tokenization import Tokenizer
from embedfleet.tuning.batches import Batches, Share, TokenBatch
from embedfleet.tuning.checkpoints import ModelFiles, Store
from embedfleet.tuning.corpus import Corpus, index_corpus
from embedfleet.tuning.drawing import EmbedderBatches, RerankerBatches, Source
from embedfleet.tuning.models import TrainedModel, load_model, merged_state
from embedfleet.tuning.records import (
    RECORD_FILE,
    RunRecord,
    load_record,
    refuse_other_run,
    settings_of,
)
from embedfleet.tuning.sampling import Plan, plan_batches
from embedfleet.tuning.sections import Dtype
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings
from embedfleet.tuning.states import capture, restore
from embedfleet.tuning.stepping import (
    Done,
    Stepper,
    learning_rate_share,
    make_optimizer,
    uncached_tokens,
)

__all__ = ["METRICS_FILE", "Metrics", "Prepared", "Watcher", "Worker", "prepare", "train"]

Settings = EmbedderSettings | RerankerSettings

METRICS_FILE = "metrics.jsonl"


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


@dataclass(frozen=True, slots=True)
class Worker:
    """Which of the processes that train together this is, and what it computes on."""

    share: Share = Share()
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether it writes what the run leaves."""
        return self.share.rank == 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run needs, checked; nothing is written yet."""

    settings: Settings
    corpus: Corpus
    plan: Plan
    model: TrainedModel
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    batches: Batches

    @property
    def role(self) -> Role:
        """Embedder or reranker."""
        return self.settings.role


def prepare(settings: Settings, share: Share | None = None) -> Prepared:
    """Check data, model and tokenizer against one another, and plan the batches.

    Raises:
        CheckpointError: The model's files are not what they should be, or do not fit.
        InvalidExamples: Data cannot be trained on.
        InvalidRequest: Settings do not suit the model or the data.
    """
    model, tokenizer, checkpoint = load_model(settings, settings.role)
    _check_dimensions(settings, checkpoint.config.hidden_size)
    corpus = index_corpus(settings.data)
    plan = plan_batches(corpus, settings)
    source = Source(corpus, plan, share or Share(), settings.seed)
    longest = checkpoint.config.max_tokens
    batches: Batches
    if isinstance(settings, EmbedderSettings):
        batches = EmbedderBatches(source, settings.sequence, tokenizer, longest)
    else:
        batches = RerankerBatches(source, settings.sequence, tokenizer, longest)
    return Prepared(settings, corpus, plan, model, checkpoint, tokenizer, batches)


def train(settings: Settings, worker: Worker, watcher: Watcher) -> Path:
    """Train to the end, going on where the run in the output folder stopped.

    Args:
        settings: Of the run.
        worker: This process.
        watcher: Told by the leading worker only.

    Returns:
        The folder of the finished model.

    Raises:
        CheckpointError, InvalidRequest: It cannot begin.
        TrainingStopped: The loss is not finite, the disk is full, or the folder holds another run.
    """
    torch.manual_seed(settings.seed + worker.share.rank)
    prepared = prepare(settings, worker.share)
    folder = Path(settings.output.folder)
    store = Store(folder, settings.checkpoints.keep)
    prepared.model.to(worker.device)
    record = _record(prepared, folder)
    if worker.leads:
        store.clean()
        store.write_text(RECORD_FILE, record.to_json())
    run = _Run(prepared, store, record, worker)
    run.resume()
    if worker.leads:
        watcher.began(run.step, record.num_steps, record.whole_tokens)
    run.go_on(watcher)
    return store.model_folder


class _Run:
    """The loop's state."""

    def __init__(self, prepared: Prepared, store: Store, record: RunRecord, worker: Worker) -> None:
        self.step = 0
        self._prepared, self._store, self._record = prepared, store, record
        self._settings, self._worker = prepared.settings, worker
        self._optimizer = make_optimizer(prepared.model, prepared.settings)
        self._stepper = Stepper(prepared.model, prepared.settings, record.whole_tokens)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        restored = self._store.restore()
        if restored is not None:
            restore(self._prepared.model, self._optimizer, restored.state)
            self.step = restored.step
        if self._worker.leads:
            _cut_metrics(self._store.folder / METRICS_FILE, self.step)

    def go_on(self, watcher: Watcher) -> None:
        """Take all steps that are left, and leave the finished model."""
        leads, num_steps = self._worker.leads, self._record.num_steps
        every = self._settings.checkpoints.every_steps
        self._store.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with (self._store.folder / METRICS_FILE).open("a") as metrics_file:
            for batch in self._upcoming():
                metrics = self._take(batch, started)
                started += metrics.seconds
                if leads:
                    metrics_file.write(json.dumps(asdict(metrics)) + "\n")
                    metrics_file.flush()
                    watcher.stepped(metrics)
                if self.step % every == 0 or self.step == num_steps:
                    self._save(watcher)
        if leads and not self._is_finished():
            self._store.finish(self._files(), self._about())

    def _upcoming(self) -> Iterator[TokenBatch]:
        """Yield batches, each tokenized while the one before is learnt from."""
        last, batches = self._record.num_steps, self._prepared.batches
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            following = pool.submit(batches.batch, self.step) if self.step < last else None
            while following is not None:
                batch = following.result()
                more = batch.step + 1 < last
                following = pool.submit(batches.batch, batch.step + 1) if more else None
                yield batch

    def _take(self, batch: TokenBatch, started: float) -> Metrics:
        share = learning_rate_share(batch.step, self._record.num_steps, self._settings)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        done = self._stepper.gradients(batch)
        if not done.finite:
            raise self._stopped(batch, done)
        self._optimizer.step()
        self.step = batch.step + 1
        return Metrics(
            step=self.step,
            num_steps=self._record.num_steps,
            loss=done.loss,
            learning_rate=self._settings.optimizer.learning_rate * share,
            grad_norm=done.grad_norm,
            tokens=batch.num_tokens,
            padding_share=round(1 - batch.num_tokens / done.padded_tokens, 4),
            seconds=time.perf_counter() - started,
            truncated=batch.num_truncated,
            cached=done.cached,
        )

    def _stopped(self, batch: TokenBatch, done: Done) -> TrainingStopped:
        rows = batch.corpus_rows
        lines = "; ".join(self._prepared.corpus.where(int(row)) for row in rows[:3])
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        newest = self._store.newest()
        kept = f"The last good checkpoint is {newest}" if newest else "There is no checkpoint yet"
        return TrainingStopped(
            f"step {batch.step + 1}: loss is {done.loss}, norm of gradients {done.grad_norm}; "
            f"weights were not moved. The batch is of {lines}{more}. {kept}. Lower "
            "optimizer.learningRate, or look at these examples, and train into another "
            "output.folder.",
            field="optimizer.learningRate",
        )

    def _save(self, watcher: Watcher) -> None:
        state = capture(self._prepared.model, self._optimizer)
        if self._worker.leads:
            progress = {"num_steps": self._record.num_steps}
            watcher.saved(self._store.save(self.step, self._files(), state, progress))

    def _files(self) -> ModelFiles:
        model = self._prepared.model
        bfloat16 = self._settings.output.dtype is Dtype.BFLOAT16
        return ModelFiles(
            source=self._prepared.checkpoint.folder,
            dtype=torch.bfloat16 if bfloat16 else torch.float32,
            weights=lambda: merged_state(model, model.state_dict()),
        )

    def _about(self) -> dict[str, object]:
        return {"tool": "embedfleet tune", **asdict(self._record)}

    def _is_finished(self) -> bool:
        return (self._store.model_folder / "training.json").is_file()


def _record(prepared: Prepared, folder: Path) -> RunRecord:
    """Describe the run, as it began if it goes on."""
    settings = prepared.settings
    before = load_record(folder)
    whole = uncached_tokens(prepared.model, settings) if before is None else before.whole_tokens
    record = RunRecord(
        role=settings.role.value,
        settings=settings_of(settings),
        data=prepared.corpus.digest,
        weights=prepared.checkpoint.weights_digest,
        num_steps=prepared.plan.num_steps,
        whole_tokens=whole,
    )
    if before is not None:
        refuse_other_run(folder, before, record)
    elif folder.is_dir() and any(folder.iterdir()):
        raise TrainingStopped(
            f"output.folder {folder} is not empty and holds no run. Choose another, or empty it.",
            field="output.folder",
        )
    return record


def _cut_metrics(file: Path, step: int) -> None:
    """Drop what was reported of steps after the checkpoint: they are taken again."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break  # a kill cut it off
        kept.append(line + "\n")
    file.write_text("".join(kept))


def _check_dimensions(settings: Settings, native: int) -> None:
    if not isinstance(settings, EmbedderSettings):
        return
    for index, each in enumerate(settings.loss.matryoshka):
        if each.dimension > native:
            field = f"loss.matryoshka[{index}].dimension"
            raise InvalidRequest(
                f"{field} is {each.dimension}; the model's vectors have {native} components. "
                "Lower it.",
                field=field,
            )
