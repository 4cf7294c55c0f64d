"""Packed bits are those of sentence-transformers, which other clients of an index may use."""

import numpy as np
import pytest
from sentence_transformers.util import quantize_embeddings

from embedfleet.messages import OutputType
from embedfleet.vectors import Finish, finish


@pytest.mark.parametrize("output_type", [OutputType.BINARY, OutputType.UBINARY])
def test_packed_bits_equal_the_peers(output_type):
    hidden = np.random.default_rng(1).normal(size=(40, 256)).astype(np.float32)
    hidden[3, :50] = 0
    peer = quantize_embeddings(hidden, precision=output_type.lower())
    ours = finish(hidden, Finish(256, True, output_type)).data
    assert ours == [row.tobytes() for row in peer]
