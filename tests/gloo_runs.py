"""One of two processes that train together: `python gloo_runs.py WHAT RANK FOLDER`.

FOLDER holds `tune.yaml` of an embedder; WHAT is one of `PARTS`. Meets the other process by a file
named after it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from training_runs import Quiet

from embedfleet.messages import Role
from embedfleet.tuning.batches import Share
from embedfleet.tuning.sections import Strategy
from embedfleet.tuning.settings import EmbedderSettings, read_settings
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker

NUM_WORKERS = 2
PATIENCE = timedelta(seconds=60)
"""For the other process: one that waits for a message never sent ends after it."""


def train_together(settings: EmbedderSettings, worker: Worker) -> None:
    """Train to the end."""
    train(settings, worker, Quiet())


PARTS = {"train": train_together}


def main() -> None:
    what, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    store = f"file://{folder}/{what}.store"
    dist.init_process_group("gloo", store, rank=rank, world_size=NUM_WORKERS, timeout=PATIENCE)
    settings = read_settings(folder / "tune.yaml", Role.EMBEDDER)
    assert isinstance(settings, EmbedderSettings)
    sharded = settings.workers.strategy is Strategy.FSDP
    PARTS[what](settings, Worker(Share(rank, NUM_WORKERS), "cpu", sharded))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
