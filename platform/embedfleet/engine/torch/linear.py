"""Matrix products of row-major activations: plain, or prepacked for oneDNN.

oneDNN reorders weights for AMX tiles; done once at load, the plain copy is dropped.

Shape legend: m tokens, i features in, o features out.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

__all__ = ["DenseLinear", "Linear", "PrepackedLinear"]


class Linear(Protocol):
    """A weight (o, i) in the form its device runs fastest."""

    def __call__(self, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply: (m, o)."""
        ...

    def add_to(self, residual_mo: torch.Tensor, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply and add; may overwrite `residual_mo`."""
        ...


class DenseLinear:
    """The weight as it is."""

    def __init__(self, weight_oi: torch.Tensor) -> None:
        self._weight_oi = weight_oi

    def __call__(self, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return F.linear(x_mi, self._weight_oi)

    def add_to(self, residual_mo: torch.Tensor, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply and add."""
        return residual_mo.addmm_(x_mi, self._weight_oi.t())


class PrepackedLinear:
    """The weight in oneDNN's blocked layout."""

    def __init__(self, weight_oi: torch.Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_oi.contiguous(), None)

    def __call__(self, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x_mi, self._packed, None, "none", [], ""
        )
        return y

    def add_to(self, residual_mo: torch.Tensor, x_mi: torch.Tensor) -> torch.Tensor:
        """Multiply and add."""
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x_mi, residual_mo, self._packed, None, "add"
        )
        return y
