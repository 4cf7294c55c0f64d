"""Weights shared out between workers, as PyTorch's FSDP does it, and whole again to be saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from embedfleet.tuning.models import TrainedModel
from embedfleet.tuning.sections import Dtype

__all__ = ["local_like", "shard", "whole"]


def shard(model: TrainedModel, precision: Dtype) -> None:
    """Share out the weights: each layer is gathered only while it is computed."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options: dict[str, Any] = {}
    if precision is Dtype.BFLOAT16:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    # What gathers a layer hangs on its call, so none of its parts may be called by itself.
    model.whole_layers = True
    for layer in model.body.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, gathered by every worker if it is shared out."""
    if isinstance(tensor, DTensor):
        gathered: Tensor = tensor.full_tensor()
        return gathered
    return tensor


def local_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor's part, shared out and placed like another."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)
