"""The weighted mean of directions on a sphere: for two, slerp (Shoemake, SIGGRAPH 1985).

For more than two, slerps one after the other would depend on their order. The Karcher mean does
not: it is the direction from which the weighted sum of all shortest ways is zero, and for two it is
slerp (Buss and Fillmore, ACM TOG 20(2), 2001). It lies in the span of what it is the mean of, so
inner products are all that is needed, whatever the number of components.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["largest_angle", "mean_coefficients"]

Float64Array = npt.NDArray[np.float64]

_MIN_COSINE: Final = -1 + 1e-6
"""Below, 0.08 degrees from opposite, rounding decides on which way round the mean lies."""
_MIN_RESULTANT: Final = 1e-4
_MAX_TURNS: Final = 200
_STILL: Final = 1e-13
_TINY: Final = 1e-7


def mean_coefficients(gram: Float64Array, weights: Float64Array) -> Float64Array | None:
    """Give what each vector is multiplied by so that the sum is their spherical mean.

    The sum has the Karcher mean's direction and the weighted mean of the lengths. A vector of zeros
    has no direction: it counts for the length only.

    Args:
        gram: (n, n) inner products of the vectors, finite.
        weights: (n,) not negative, sum 1.

    Returns:
        (n,) coefficients, or None where the directions have no mean: two are opposite, or they
        cancel out.
    """
    lengths = np.sqrt(np.diagonal(gram))
    used = np.flatnonzero((lengths > 0) & (weights > 0))
    coefficients = np.zeros(len(weights))
    if not len(used):
        return coefficients
    cosines = _cosines(gram, used)
    if cosines.min() < _MIN_COSINE:
        return None
    direction = _karcher(cosines, weights[used] / weights[used].sum())
    if direction is None:
        return None
    coefficients[used] = direction * (weights @ lengths) / lengths[used]
    return coefficients


def largest_angle(gram: Float64Array) -> float:
    """Tell how far apart the two most different directions are, in degrees."""
    used = np.flatnonzero(np.diagonal(gram) > 0)
    if not len(used):
        return 0.0
    return float(np.degrees(np.arccos(_cosines(gram, used).min())))


def _cosines(gram: Float64Array, used: npt.NDArray[np.intp]) -> Float64Array:
    lengths = np.sqrt(np.diagonal(gram)[used])
    cosines = np.clip(gram[np.ix_(used, used)] / lengths / lengths[:, None], -1, 1)
    np.fill_diagonal(cosines, 1)
    return cosines


def _karcher(cosines: Float64Array, weights: Float64Array) -> Float64Array | None:
    """Walk to the mean of unit vectors, in coefficients of them; None if it is not reached."""
    mean = weights.copy()
    resultant = _length(mean, cosines)
    if resultant < _MIN_RESULTANT:
        return None
    mean /= resultant
    for _ in range(_MAX_TURNS):
        toward = np.clip(cosines @ mean, -1, 1)
        angles = np.arccos(toward)
        # angle / sin(angle), whose limit is 1 where both are too small to divide.
        stretch = np.divide(angles, np.sin(angles), out=np.ones_like(angles), where=angles > _TINY)
        way = weights * stretch - (weights * stretch) @ toward * mean
        length = _length(way, cosines)
        if length > 0:
            mean = np.cos(length) * mean + np.sin(length) / length * way
        mean /= _length(mean, cosines)
        if length < _STILL or angles.max() < _TINY:
            return mean
    return None


def _length(combined: Float64Array, cosines: Float64Array) -> float:
    # Rounding can bring the square of what is nearly nothing below zero.
    return math.sqrt(max(0.0, float(combined @ cosines @ combined)))
