"""Scores are the two-way softmax of the published recipe, at any log-odds."""

import math

import numpy as np
import pytest

from embedfleet.scores import probabilities


@pytest.mark.parametrize(
    ("log_odds", "expected", "why"),
    [
        (0.0, 0.5, "as likely as not"),
        (math.log(3), 0.75, "three to one"),
        (-math.log(3), 0.25, "one to three"),
        (-700.0, math.exp(-700), "the smallest scores keep their order"),
        (1e4, 1.0, "exp of it would overflow"),
        (-1e4, 0.0, "exp of its negative would overflow"),
    ],
)
def test_probability_of_a_yes(log_odds, expected, why):
    (found,) = probabilities(np.array([log_odds]))
    assert found == pytest.approx(expected, rel=1e-12), why


def test_equals_the_softmax_over_both_answers():
    yes, no = np.random.default_rng(1).normal(0, 8, (2, 100))
    softmax = np.exp(yes) / (np.exp(yes) + np.exp(no))
    assert probabilities(yes - no) == pytest.approx(softmax, rel=1e-12)
    assert probabilities((yes - no).astype(np.float32)).dtype == np.float32
