"""What training needs to go on, as tensors by name: weights and moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from embedfleet.errors import CheckpointError
from embedfleet.tuning.models import TrainedModel
from embedfleet.tuning.sharding import local_like, whole

__all__ = ["all_weights", "capture", "restore"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


def all_weights(model: TrainedModel) -> dict[str, Tensor]:
    """Return every weight by name, whole; every worker has to call it."""
    return {name: whole(tensor.detach()) for name, tensor in model.named_parameters()}


def capture(model: TrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy the state of what is trained to the CPU; every worker has to call it."""
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            state[f"weight.{name}"] = whole(parameter.detach()).cpu()
            for key, value in optimizer.state[parameter].items():
                state[f"{key}.{name}"] = whole(torch.as_tensor(value).detach()).cpu()
    return state


def restore(
    model: TrainedModel, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Put a captured state back.

    Raises:
        CheckpointError: It is that of another model.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            kept = state.get(f"weight.{name}")
            if kept is None or kept.shape != parameter.shape:
                raise CheckpointError(
                    f"the checkpoint's state has no {name} of shape {list(parameter.shape)}. "
                    "Choose another output.folder."
                )
            parameter.copy_(local_like(kept, parameter))
            step = state[f"step.{name}"]
            moments = {key: local_like(state[f"{key}.{name}"], parameter) for key in _MOMENTS}
            optimizer.state[parameter] = {"step": step.to(parameter.device), **moments}
