"""Rotary position tables, grown on demand.

Formula: RoFormer (arXiv 2104.09864) with theta from the checkpoint. Angles are computed in float32
from a float32 inverse frequency, as the reference does: a more exact angle would be another model.

Shape legend: R rows (tokens), D head dimension.
"""

from __future__ import annotations

import torch

__all__ = ["RotaryTable"]

_FIRST_ROWS = 1024


class RotaryTable:
    """The angles of every position met so far.

    Args:
        head_dim: D, even.
        theta: Base of the frequencies, `rope_theta`.
    """

    def __init__(self, head_dim: int, theta: float, device: torch.device) -> None:
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        self._inverse_frequency = 1.0 / (theta**exponents)
        self._angles = self._compute(0)

    def angles(self, positions: torch.Tensor, max_position: int) -> torch.Tensor:
        """Look up the angles of `positions` (R,): float32 (R, D / 2).

        The caller names the largest of them, so that nothing waits for a device.
        """
        angles = self._angles  # another thread may replace it meanwhile, by a shorter one
        if max_position >= len(angles):
            # Doubling keeps the number of recomputations logarithmic.
            angles = self._compute(max(max_position + 1, 2 * len(angles), _FIRST_ROWS))
            self._angles = angles
        return angles[positions]

    def _compute(self, num_positions: int) -> torch.Tensor:
        positions = torch.arange(
            num_positions, dtype=torch.float32, device=self._inverse_frequency.device
        )
        return torch.outer(positions, self._inverse_frequency)
