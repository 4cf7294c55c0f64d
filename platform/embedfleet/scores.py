"""Log-odds to the probabilities that rerankers are read as; knows nothing of prompts or engines.

The published recipe takes exp(log_softmax([no, yes]))[1], which is the sigmoid of
logit(yes) - logit(no) (model cards of Qwen3-Reranker).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["probabilities"]

Float = TypeVar("Float", bound=np.floating)


def probabilities(log_odds: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Give the probability of a yes for each log-odds, of its type, overflowing at neither end."""
    odds = np.exp(-np.abs(log_odds))
    found: npt.NDArray[Float] = np.where(log_odds >= 0, 1, odds) / (1 + odds)
    return found
