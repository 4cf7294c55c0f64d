"""Confidence: against scipy, by simulation, and what is said of a difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from embedfleet.evaluation.bootstrap import Interval, interval, resampled_means
from embedfleet.evaluation.comparing import sentence
from embedfleet.evaluation.similarity import cosines, resampled_spearman, spearman


def bounds(values: np.ndarray, seed: int = 0, num_resamples: int = 10_000) -> Interval:
    drawn = resampled_means(values[:, None], (seed,), num_resamples)
    return interval(float(values.mean()), drawn[:, 0])


def test_bounds_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).beta(0.6, 0.4, 300)
    peer = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    found = bounds(values, num_resamples=20_000)
    width = peer.high - peer.low
    assert found.low == pytest.approx(peer.low, abs=0.03 * width)
    assert found.high == pytest.approx(peer.high, abs=0.03 * width)


def test_bounds_hold_the_truth_as_often_as_they_say() -> None:
    # Values as of nDCG: many zeros and ones. 95 % of 600 draws: a standard error of 0.9 points.
    random = np.random.default_rng(7)
    truth = 0.25 * 1.0 + 0.5 * 0.5
    held = 0
    for trial in range(600):
        kind = random.random(200)
        values = np.where(kind < 0.25, 0.0, np.where(kind < 0.5, 1.0, random.random(200)))
        found = bounds(values, seed=trial, num_resamples=1_000)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 600 <= 0.975


def test_pairing_shows_what_single_bounds_hide() -> None:
    # Queries differ far more than systems do: only their differences, query by query, tell.
    random = np.random.default_rng(2)
    hard = random.random(300)
    one, other = hard + 0.02 + random.normal(0, 0.02, 300), hard
    drawn = resampled_means(np.stack([one, other], axis=1), (0,), 10_000)
    first, second = (interval(v.mean(), drawn[:, at]) for at, v in enumerate((one, other)))
    assert first.low < second.high
    apart = interval(one.mean() - other.mean(), drawn[:, 0] - drawn[:, 1])
    assert apart.excludes_zero
    assert apart.value == pytest.approx(0.02, abs=0.005)
    peer = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (apart.low, apart.high) == pytest.approx((peer.low, peer.high), abs=2e-4)


def test_the_same_system_twice_shows_no_difference() -> None:
    values = np.random.default_rng(1).random(50)
    drawn = resampled_means(np.stack([values, values], axis=1), (0,))
    apart = interval(0.0, drawn[:, 0] - drawn[:, 1])
    assert (apart.low, apart.high, apart.excludes_zero) == (0, 0, False)
    assert sentence(apart) == "no difference shown (95 % 0.0 to 0.0)"


def test_draws_repeat_with_their_seed_whatever_the_block() -> None:
    values = np.random.default_rng(1).random((3_000, 2))
    once, again, other = (resampled_means(values, (seed, 1), 2_000) for seed in (4, 4, 5))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)
    np.testing.assert_allclose(once.mean(axis=0), values.mean(axis=0), atol=0.002)
    np.testing.assert_allclose(once.std(axis=0), values.std(axis=0) / np.sqrt(3_000), rtol=0.08)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Interval(0.031, 0.012, 0.05), "+3.1 points (95 % 1.2 to 5.0)"),
        (Interval(-0.2, -0.3, -0.001), "-20.0 points (95 % -30.0 to -0.1)"),
        (Interval(0.01, -0.002, 0.02), "no difference shown (95 % -0.2 to 2.0)"),
        (Interval(0.01, 0.0, 0.02), "no difference shown (95 % 0.0 to 2.0)"),
    ],
    ids=["better", "worse", "around-zero", "at-zero"],
)
def test_a_difference_is_said_only_where_it_is_shown(found: Interval, said: str) -> None:
    assert sentence(found) == said


@pytest.mark.parametrize("ties", [1, 7, 1000])
def test_rank_correlation_is_scipys(ties: int) -> None:
    random = np.random.default_rng(ties)
    one = random.integers(0, ties + 1, 80).astype(np.float64)
    other = one + random.integers(0, ties + 1, 80)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_drawn_rank_correlations_are_scipys() -> None:
    random = np.random.default_rng(9)
    scores = random.integers(0, 6, 40).astype(np.float64)
    found = scores + random.normal(0, 2, 40)
    ours = resampled_spearman(found, scores, (3,), 50)
    draws = np.random.default_rng((3,)).integers(0, 40, (50, 40))
    theirs = [stats.spearmanr(found[each], scores[each]).statistic for each in draws]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_what_has_no_order_correlates_with_nothing() -> None:
    assert spearman(np.ones(5), np.arange(5.0)) == 0


def test_cosines_need_no_unit_length() -> None:
    one, other = np.array([[3, 4], [1, 0]], np.float32), np.array([[6, 8], [0, 2]], np.float32)
    np.testing.assert_allclose(cosines(one, other), [1, 0], atol=1e-7)
