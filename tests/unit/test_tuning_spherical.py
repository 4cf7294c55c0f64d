"""The mean of directions: known angles, another implementation of slerp, and what defines it."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from embedfleet.tuning.spherical import largest_angle, mean_coefficients


def mean(rows: Any, weights: Any) -> Any:
    rows = np.asarray(rows, float)
    factors = mean_coefficients(rows @ rows.T, np.asarray(weights, float))
    return None if factors is None else factors @ rows


def at(degrees: float, length: float = 1.0) -> list[float]:
    return [length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees)), 0.0]


@pytest.mark.parametrize("degrees", [0, 1e-9, 1e-6, 1e-3, 0.1, 45, 90, 135, 179, 179.9])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_two_directions_meet_at_their_share_of_the_angle(degrees: float, share: float) -> None:
    found = mean([at(0), at(degrees)], [1 - share, share])
    np.testing.assert_allclose(found, at(degrees * share), atol=1e-10)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_lengths_meet_on_a_line(share: float) -> None:
    found = mean([at(30, 2), at(120, 5)], [1 - share, share])
    np.testing.assert_allclose(found, at(30 + 90 * share, 2 + 3 * share), atol=1e-12)


def test_two_of_many_components_are_slerp_of_scipy() -> None:
    drawn = np.random.default_rng(0).standard_normal((20, 2, 64))
    for one, other in drawn:
        lengths = np.linalg.norm(one), np.linalg.norm(other)
        expected = geometric_slerp(one / lengths[0], other / lengths[1], 0.3)
        expected *= 0.7 * lengths[0] + 0.3 * lengths[1]
        np.testing.assert_allclose(mean([one, other], [0.7, 0.3]), expected, atol=1e-12)


@pytest.mark.parametrize("degrees", [179.95, 180])
def test_opposite_directions_have_no_mean(degrees: float) -> None:
    assert mean([at(0), at(degrees)], [0.5, 0.5]) is None
    assert mean([at(0), at(90), at(90 + degrees)], [0.2, 0.4, 0.4]) is None
    # What has no weight is in nobody's way.
    np.testing.assert_allclose(mean([at(0), at(degrees)], [1, 0]), at(0), atol=1e-12)


def test_directions_that_cancel_out_have_no_mean() -> None:
    assert mean([at(0), at(120), at(240)], [1 / 3, 1 / 3, 1 / 3]) is None


@pytest.mark.parametrize("spread", [1e-8, 1e-6, 1e-4, 1e-2, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_ways_from_the_mean_cancel_out(count: int, spread: float) -> None:
    # What defines the Karcher mean; equal lengths would hide a mistake with them.
    random = np.random.default_rng(count)
    rows = random.uniform(0.5, 2, (count, 1)) * (1 + spread * random.standard_normal((count, 40)))
    weights = random.uniform(0.1, 1, count)
    weights /= weights.sum()
    found = mean(rows, weights)
    length = float(np.linalg.norm(found))
    assert length == pytest.approx(float(weights @ np.linalg.norm(rows, axis=1)), rel=1e-12)
    middle = found / length
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    across = units - (units @ middle)[:, None] * middle
    sines = np.linalg.norm(across, axis=1)
    angles = np.arctan2(sines, units @ middle)  # exact where arccos is not
    ways = across * (angles / sines)[:, None]
    assert np.linalg.norm(weights @ ways) < 1e-12


def test_the_order_does_not_matter() -> None:
    rows = np.random.default_rng(1).standard_normal((4, 30)) + 1
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    expected = mean(rows, weights)
    for order in permutations(range(4)):
        np.testing.assert_allclose(mean(rows[[*order]], weights[[*order]]), expected, atol=1e-12)


def test_three_equal_ones_a_quarter_turn_apart_meet_in_the_middle() -> None:
    found = mean(np.eye(3), [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(found, np.full(3, 1 / math.sqrt(3)), atol=1e-12)


def test_the_same_stays_the_same() -> None:
    row = np.random.default_rng(2).standard_normal(50)
    np.testing.assert_allclose(mean([row] * 4, [0.25] * 4), row, rtol=1e-12)


def test_zeros_have_no_direction_but_a_length() -> None:
    np.testing.assert_allclose(mean([at(0, 0), at(30, 2)], [0.25, 0.75]), at(30, 1.5), atol=1e-12)
    np.testing.assert_array_equal(mean([at(0, 0), at(0, 0)], [0.5, 0.5]), [0, 0, 0])


def test_the_widest_angle() -> None:
    rows = np.array([at(0), at(50, 3), at(200, 0.1), at(0, 0)])
    assert largest_angle(rows @ rows.T) == pytest.approx(160)
    assert largest_angle(np.zeros((2, 2))) == 0
