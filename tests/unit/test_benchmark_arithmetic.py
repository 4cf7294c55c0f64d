"""What measures divide by, against published counts of the 0.6B model."""

import numpy as np
import pytest
from benchmarks.support.arithmetic import (
    engine_flops,
    linear_parameters,
    lognormal_lengths,
    model_flops,
)

from embedfleet.checkpoint.config import ModelConfig

VOCABULARY, HIDDEN, LAYERS, HEAD = 151_669, 1024, 28, 128
SHAPE = ModelConfig(LAYERS, HIDDEN, 16, 8, HEAD, 3072, VOCABULARY, 32_768, 1e-6, 1e6, True)
PUBLISHED_PARAMETERS = 595_776_512


def test_products_and_norms_and_table_make_the_published_count():
    norms = LAYERS * (2 * HIDDEN + 2 * HEAD) + HIDDEN
    assert linear_parameters(SHAPE) + norms + VOCABULARY * HIDDEN == PUBLISHED_PARAMETERS


@pytest.mark.parametrize("length", [1, 2, 7])
def test_attention_counts_each_pair_that_is_looked_at(length):
    pairs = np.tril(np.ones((length, length))).sum()
    attention = model_flops(SHAPE, 3, length) - 2 * 3 * length * linear_parameters(SHAPE)
    assert attention == 3 * LAYERS * 16 * pairs * 2 * (2 * HEAD)  # scores, then sums


def test_one_token_leaves_nothing_out_and_long_ones_most_of_a_layer():
    assert engine_flops(SHAPE, 1, 1) == model_flops(SHAPE, 1, 1)
    left_out = 1 - engine_flops(SHAPE, 2, 512) / model_flops(SHAPE, 2, 512)
    kept = 2 * 8 * HEAD * HIDDEN / (linear_parameters(SHAPE) / LAYERS)  # keys and values
    assert (1 - kept) / LAYERS < left_out < 1 / LAYERS


def test_lengths_follow_the_distribution():
    lengths = np.array(lognormal_lengths(10_000, 60, 1_500))
    assert np.median(lengths) == pytest.approx(60, abs=1)
    assert np.percentile(lengths, 99) == pytest.approx(1_500, rel=0.02)
    assert min(lognormal_lengths(64, 60, 1_500)) >= 2
