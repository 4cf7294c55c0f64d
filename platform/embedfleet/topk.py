"""The greatest of many numbers, of equals the first; knows not what the numbers are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedfleet.messages import Float32Array

__all__ = ["top_places"]

Places = npt.NDArray[np.int64]


def top_places(numbers: Float32Array, count: int) -> Places:
    """Find the greatest of each row, greatest first; of equals the ones that come first.

    Args:
        numbers: (rows, n), none of them NaN.
        count: At least 1; of fewer than so many numbers all are found.

    Returns:
        (rows, min(count, n)) places.
    """
    if count < numbers.shape[1]:
        places = np.argpartition(-numbers, count - 1, axis=1)[:, :count]
        _take_first_of_equals(numbers, places)
        places.sort(axis=1)
    else:
        places = np.broadcast_to(np.arange(numbers.shape[1]), numbers.shape)
    found = np.take_along_axis(numbers, places, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1).astype(np.int64, copy=False)


def _take_first_of_equals(numbers: Float32Array, places: Places) -> None:
    """Put the first of equals in the place of any, in rows where not all of them were taken."""
    found = np.take_along_axis(numbers, places, 1)
    edge = found.min(axis=1, keepdims=True)
    left_out = (numbers == edge).sum(axis=1) > (found == edge).sum(axis=1)
    for row in np.flatnonzero(left_out):
        above = np.flatnonzero(numbers[row] > edge[row])
        equal = np.flatnonzero(numbers[row] == edge[row])
        places[row] = np.concatenate((above, equal[: places.shape[1] - len(above)]))
