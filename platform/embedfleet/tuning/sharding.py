"""Weights shared out between workers, as PyTorch's FSDP does it, and whole again to be saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from embedfleet.tuning.models import TrainedModel
from embedfleet.tuning.sections import Dtype

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

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
    if _shared_out(tensor):
        gathered: Tensor = tensor.full_tensor()
        return gathered
    return tensor


def local_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor's part, shared out and placed like another."""
    if _shared_out(like):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)


def _shared_out(tensor: Tensor) -> TypeGuard[DTensor]:
    """Tell by what only a `DTensor` has: importing it takes a second, and one worker has none."""
    return hasattr(tensor, "device_mesh")
