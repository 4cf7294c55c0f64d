"""Where a run's workers are started: in this process, or by Ray Train on a machine or a cluster."""

from __future__ import annotations

from pathlib import Path

import torch

from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings
from embedfleet.tuning.training import Watcher, Worker, train

__all__ = ["launch"]


def launch(settings: EmbedderSettings | RerankerSettings, watcher: Watcher) -> Path:
    """Train to the end with as many workers as the settings say."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() and settings.workers.gpus != 0 else "cpu"
    return train(settings, Worker(device=device), watcher)
