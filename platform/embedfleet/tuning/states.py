"""What training needs to go on, as tensors by name: weights, moments, random numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from embedfleet.errors import CheckpointError
from embedfleet.tuning.models import TrainedModel

__all__ = ["capture", "restore"]


def capture(model: TrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy the state of what is trained to the CPU."""
    state: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["random.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        state[f"weight.{name}"] = parameter.detach().cpu()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{key}.{name}"] = torch.as_tensor(value).detach().cpu()
    return state


def restore(
    model: TrainedModel, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Put a captured state back.

    Raises:
        CheckpointError: It is that of another model.
    """
    keys = ("step", "exp_avg", "exp_avg_sq")
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
            parameter.copy_(kept)
            optimizer.state[parameter] = {
                key: state[f"{key}.{name}"].to(
                    "cpu" if key == "step" and parameter.device.type == "cpu" else parameter.device
                )
                for key in keys
            }
    torch.set_rng_state(state["random.cpu"])
    if "random.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random.cuda"])
