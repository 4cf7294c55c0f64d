"""From pooled hidden states to results: the final norm, the score row, the finite check.

Runs on one row a sequence, so always in float32. A score is the log-odds of the two answers of the
official recipe: log_softmax over the vocabulary cancels in logit(yes) - logit(no).

Shape legend: S sequences, h hidden.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from embedfleet.errors import NonFiniteResult
from embedfleet.messages import Float32Array

__all__ = ["final_states", "finite"]


def final_states(pooled_Sh: torch.Tensor, weight_h: torch.Tensor, eps: float) -> torch.Tensor:
    """Apply the final norm: float32 (S, h)."""
    return F.rms_norm(pooled_Sh.float(), weight_h.shape, weight_h, eps)


def finite(result: torch.Tensor, what: str) -> Float32Array:
    """Bring a result to the CPU, in one copy, and refuse NaN and infinity.

    Args:
        result: (S, ...) float32.
        what: Name of a row in the message, such as `embedding`.
    """
    array: Float32Array = result.numpy(force=True)
    good = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not good.all():
        rows = np.flatnonzero(~good)
        raise NonFiniteResult(
            f"{what} {rows[0]} of {len(array)} is not finite ({len(rows)} in all): the weights are "
            "damaged or the type overflows. Check the checkpoint's files, or set dtype to float32."
        )
    return array
