"""How sure a mean over queries is: percentile bootstrap, the same resamples for every system.

Queries are drawn with replacement (Efron 1979); because all systems are measured on the same draws,
differences are paired (Sakai 2006, "Evaluating evaluation metrics based on the bootstrap"). Means
over datasets draw within each dataset, and weigh datasets equally.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "NUM_RESAMPLES", "Interval", "interval", "resampled_means"]

CONFIDENCE: Final = 0.95
NUM_RESAMPLES: Final = 10_000
_BLOCK_DRAWS: Final = 4_194_304


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds between which it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is shown: both bounds on one side of zero."""
        return self.low > 0 or self.high < 0


def resampled_means(
    values: npt.NDArray[np.float64], seed: tuple[int, ...], num_resamples: int = NUM_RESAMPLES
) -> npt.NDArray[np.float64]:
    """Draw queries again and again, and take each draw's means.

    Args:
        values: (num_queries, num_columns): every column of one query is drawn together.
        seed: The same seed gives the same draws.
        num_resamples: How many draws.

    Returns:
        (num_resamples, num_columns).
    """
    num_queries = len(values)
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK_DRAWS // num_queries)
    means = np.empty((num_resamples, values.shape[1]))
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = random.integers(0, num_queries, (size, num_queries))
        drawn += np.arange(size)[:, None] * num_queries
        counts = np.bincount(drawn.ravel(), minlength=size * num_queries)
        weights = counts.reshape(size, num_queries) / num_queries
        means[start : start + size] = weights @ values
    return means


def interval(
    value: float, resampled: npt.NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval:
    """Give a value's bounds from its resampled values, (num_resamples,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # Rounding in sums must not show a difference of systems that are the same.
    if np.ptp(resampled) < 1e-12:
        low = high = value
    return Interval(float(value), float(low), float(high))
