"""One of two processes that train together: `python gloo_runs.py RANK ROLE WHAT FOLDER [...]`.

FOLDER holds `tune.yaml` of that role; WHAT is one of `PARTS`. Meets the other process by a file
beside its output that is named after both. Does one after the other, since starting takes longest.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from training_runs import Quiet

from embedfleet.messages import Role
from embedfleet.tuning.batches import Share, micro_batches
from embedfleet.tuning.preparing import prepare
from embedfleet.tuning.sections import Strategy
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings, read_settings
from embedfleet.tuning.sharding import shard, whole
from embedfleet.tuning.stepping import Stepper
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker

Settings = EmbedderSettings | RerankerSettings

NUM_WORKERS = 2
KILLED = 9
PATIENCE = timedelta(seconds=240)
"""For the other process: one that waits for a message never sent ends after it."""


def train_together(settings: Settings, worker: Worker) -> None:
    """Train to the end."""
    train(settings, worker, Quiet())


class Killed(Quiet):
    """Ends this process after a checkpoint, as a kill would; the others then wait in vain."""

    def saved(self, folder: Path) -> None:
        if folder.name == "step-00000004":
            os._exit(KILLED)


def train_until_killed(settings: Settings, worker: Worker) -> None:
    """Train until the leading worker is gone, and end as its peers do then."""
    try:
        train(settings, worker, Killed())
    except RuntimeError:  # what gloo raises where the other end is closed
        os._exit(KILLED)


def step_together(settings: Settings, worker: Worker) -> None:
    """Leave the gradients of the first batch, cached by one worker's count and not by the other's.

    No worker's own share is all of it: the limit is what the smaller one has.
    """
    sizes = [_padded_tokens(settings, rank) for rank in range(NUM_WORKERS)]
    assert min(sizes) < max(sizes)
    gradients = first_gradients(settings, worker, whole_tokens=min(sizes))
    torch.save(gradients, f"{settings.output.folder}.{worker.share.rank}.pt")


def first_gradients(settings: Settings, worker: Worker, whole_tokens: int) -> dict[str, Tensor]:
    """Compute the gradients of the first batch, whole, by name."""
    prepared = prepare(settings, worker.share)
    if worker.sharded:
        shard(prepared.model, settings.precision)
    Stepper(prepared.model, settings, whole_tokens, worker).gradients(prepared.batches.batch(0))
    named = prepared.model.named_parameters()
    return {name: whole(p.grad) for name, p in named if p.grad is not None}


def _padded_tokens(settings: Settings, rank: int) -> int:
    sequences = prepare(settings, Share(rank, NUM_WORKERS)).batches.batch(0).sequences
    limit = settings.batch.micro_batch_tokens
    assert limit is not None
    return sum(part.token_ids.numel() for part in micro_batches(sequences, limit))


PARTS = {"train": train_together, "kill": train_until_killed, "step": step_together}


def do(role: Role, what: str, rank: int, folder: Path) -> None:
    settings = read_settings(folder / "tune.yaml", role)
    store = f"file://{settings.output.folder}.{what}"
    dist.init_process_group("gloo", store, rank=rank, world_size=NUM_WORKERS, timeout=PATIENCE)
    sharded = settings.workers.strategy is Strategy.FSDP
    PARTS[what](settings, Worker(Share(rank, NUM_WORKERS), "cpu", sharded))
    dist.destroy_process_group()


if __name__ == "__main__":
    own_rank, *told = sys.argv[1:]
    for role, part, place in zip(told[0::3], told[1::3], told[2::3], strict=True):
        do(Role(role), part, int(own_rank), Path(place))
