"""A run from its settings to a finished model: go on from the last checkpoint, learn, save.

The same function runs in the calling process and in every worker of a cluster; it knows a process
group if there is one, but not who started it. All that is drawn depends on the step and the worker
alone, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import torch

from embedfleet.errors import TrainingStopped
from embedfleet.tuning.batches import TokenBatch
from embedfleet.tuning.checkpoints import ModelFiles, Restored, Store
from embedfleet.tuning.models import merged_state
from embedfleet.tuning.preparing import Prepared, prepare
from embedfleet.tuning.records import (
    RECORD_FILE,
    RunRecord,
    load_record,
    refuse_other_run,
    settings_of,
)
from embedfleet.tuning.sections import Dtype
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings
from embedfleet.tuning.sharding import shard
from embedfleet.tuning.states import all_weights, capture, restore
from embedfleet.tuning.stepping import (
    Done,
    Stepper,
    learning_rate_share,
    make_optimizer,
    uncached_tokens,
)
from embedfleet.tuning.watching import METRICS_FILE, Metrics, Watcher, cut_metrics, metrics_line
from embedfleet.tuning.workers import Worker, agreed

__all__ = ["train"]

_AHEAD: Final = 4
"""Batches that are made at once: a GPU learns faster than one thread tokenizes."""


def train(settings: EmbedderSettings | RerankerSettings, worker: Worker, watcher: Watcher) -> Path:
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
    # The same weights of adapters everywhere: only gradients are averaged, never weights.
    torch.manual_seed(settings.seed)
    prepared = prepare(settings, worker.share)
    store = Store(Path(settings.output.folder), settings.checkpoints.keep)
    whole = uncached_tokens(prepared.model, settings, worker.device)
    prepared.model.to(worker.device)
    if worker.sharded:
        shard(prepared.model, settings.precision)
    before = agreed(lambda: load_record(store.folder), worker.leads)
    record = agreed(lambda: _begin(prepared, store, before, whole), worker.leads)
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
        self._stepper = Stepper(prepared.model, prepared.settings, record.whole_tokens, worker)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        restored = self._store.restore()
        if restored is not None:
            self._take_up(restored)
        if self._worker.leads:
            cut_metrics(self._store.folder, self.step)

    def go_on(self, watcher: Watcher) -> None:
        """Take all steps that are left, and leave the finished model."""
        leads, num_steps = self._worker.leads, self._record.num_steps
        every = self._settings.checkpoints.every_steps
        began = time.perf_counter()
        with (self._store.folder / METRICS_FILE).open("a") as metrics_file:
            for batch in self._upcoming():
                metrics = self._take(batch, began)
                began += metrics.seconds
                if leads:
                    self._report(metrics_file, metrics)
                    watcher.stepped(metrics)
                if self.step % every == 0 or self.step == num_steps:
                    self._save(watcher)
        if not self._store.is_finished():
            files = self._files()
            if leads:
                self._store.finish(files, {"tool": "embedfleet tune", **asdict(self._record)})

    def _report(self, file: TextIO, metrics: Metrics) -> None:
        def write() -> None:
            file.write(metrics_line(metrics))
            file.flush()

        self._store.guard(METRICS_FILE, write)

    def _take_up(self, restored: Restored) -> None:
        restore(self._prepared.model, self._optimizer, restored.state)
        self.step = restored.step

    def _upcoming(self) -> Iterator[TokenBatch]:
        """Yield batches, each drawn and tokenized while those before it are learnt from."""
        batches = self._prepared.batches
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="batches") as pool:
            steps = iter(range(self.step, self._record.num_steps))
            following = deque(pool.submit(batches.batch, step) for step in islice(steps, _AHEAD))
            while following:
                batch = following.popleft().result()
                following.extend(pool.submit(batches.batch, step) for step in islice(steps, 1))
                yield batch

    def _take(self, batch: TokenBatch, began: float) -> Metrics:
        share = learning_rate_share(batch.step, self._record.num_steps, self._settings)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        torch.manual_seed(_dropout_seed(self._settings.seed, batch.step, self._worker.share.rank))
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
            tokens=batch.num_tokens * self._worker.share.workers,
            padding_share=round(1 - batch.num_tokens / done.padded_tokens, 4),
            seconds=time.perf_counter() - began,
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
        # Every worker takes part: each may hold a part only.
        state, files = capture(self._prepared.model, self._optimizer), self._files()
        if self._worker.leads:
            progress = {"num_steps": self._record.num_steps}
            watcher.saved(self._store.save(self.step, files, state, progress))

    def _files(self) -> ModelFiles:
        model = self._prepared.model
        weights = all_weights(model)
        bfloat16 = self._settings.output.dtype is Dtype.BFLOAT16
        return ModelFiles(
            source=self._prepared.checkpoint.folder,
            dtype=torch.bfloat16 if bfloat16 else torch.float32,
            weights=lambda: merged_state(model, weights),
        )


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """Give what a worker's dropout is drawn from in a step, whatever was drawn before it."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def _begin(
    prepared: Prepared, store: Store, before: RunRecord | None, whole_tokens: int
) -> RunRecord:
    """Describe the run, as it began if it goes on, and keep the description."""
    folder = store.folder
    record = RunRecord(
        role=prepared.role.value,
        settings=settings_of(prepared.settings),
        data=prepared.corpus.digest,
        weights=prepared.checkpoint.weights_digest,
        num_steps=prepared.plan.num_steps,
        whole_tokens=whole_tokens if before is None else before.whole_tokens,
    )
    if before is not None:
        refuse_other_run(folder, before, record)
    elif folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise TrainingStopped(
            f"output.folder {folder} is not empty and holds no run. Choose another, or empty it.",
            field="output.folder",
        )
    store.clean()
    store.write_text(RECORD_FILE, record.to_json())
    return record
