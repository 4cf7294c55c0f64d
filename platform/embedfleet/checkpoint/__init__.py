"""Checkpoints: where they come from, what they must hold, and their tensors one at a time."""

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.checkpoint.loading import Checkpoint, open_checkpoint
from embedfleet.checkpoint.sources import resolve

__all__ = ["Checkpoint", "ModelConfig", "open_checkpoint", "resolve"]
