"""Checkpoints that give other outputs than the embedded models: their layers are shaken."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from embedfleet.checkpoint import resolve
from embedfleet.messages import Role

__all__ = ["EMBEDDED", "drifted"]

EMBEDDED = {Role.EMBEDDER: "embedded/embedder", Role.RERANKER: "embedded/reranker"}


def drifted(folder: Path, role: Role, size: float) -> str:
    """Copy a checkpoint with every weight of its layers off by about a share of itself."""
    shutil.copytree(resolve(EMBEDDED[role]), folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(5)
    for name, tensor in tensors.items():
        if "layers" in name:
            noise = torch.randn(tensor.shape, generator=generator) * size
            tensors[name] = (tensor.float() * (1 + noise)).to(tensor.dtype)
    save_file(tensors, file)
    return str(folder)
