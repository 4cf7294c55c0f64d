"""Sequences laid end to end: what engines may rely on."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.batching.packing import pack


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("sequences", "prefixes", "parents", "token_ids", "positions", "cu_seqlens", "prefix_of"),
    [
        pytest.param([ids(7)], [], None, [7], [0], [0, 1], [-1], id="one token"),
        pytest.param(
            [ids(5, 6, 7)], [], None, [5, 6, 7], [0, 1, 2], [0, 3], [-1], id="one sequence"
        ),
        pytest.param(
            [ids(5, 6), ids(7)],
            [],
            None,
            [5, 6, 7],
            [0, 1, 0],
            [0, 2, 3],
            [-1, -1],
            id="each sequence counts from 0",
        ),
        pytest.param(
            [ids(8), ids(9, 9)],
            [ids(1, 2, 3)],
            [0, 0],
            [1, 2, 3, 8, 9, 9],
            [0, 1, 2, 3, 3, 4],
            [0, 3, 4, 6],
            [0, 0],
            id="sequences continue their prefix",
        ),
        pytest.param(
            [ids(8), ids(9)],
            [ids(1), ids(2, 2)],
            [1, -1],
            [1, 2, 2, 8, 9],
            [0, 0, 1, 2, 0],
            [0, 1, 3, 4, 5],
            [1, -1],
            id="two prefixes, one sequence without",
        ),
    ],
)
def test_layout(sequences, prefixes, parents, token_ids, positions, cu_seqlens, prefix_of):
    batch = pack(sequences, prefixes, parents)
    assert batch.token_ids.tolist() == token_ids
    assert batch.positions.tolist() == positions
    assert batch.cu_seqlens.tolist() == cu_seqlens
    assert batch.prefix_of.tolist() == prefix_of
    assert (batch.num_sequences, batch.num_prefixes) == (len(sequences), len(prefixes))
    assert batch.num_tokens == len(token_ids)
    dtypes = [batch.token_ids, batch.positions, batch.cu_seqlens, batch.prefix_of]
    assert [array.dtype.name for array in dtypes] == ["int64", "int64", "int32", "int32"]


@given(st.lists(st.lists(st.integers(0, 151_668), min_size=1, max_size=9), min_size=1, max_size=9))
def test_every_sequence_can_be_cut_out_again(sequences):
    batch = pack([ids(*sequence) for sequence in sequences])
    bounds = batch.cu_seqlens.tolist()
    cut = [batch.token_ids[a:b].tolist() for a, b in pairwise(bounds)]
    assert cut == sequences


def test_a_read_only_input_gives_a_batch_of_its_own():
    frozen = np.frombuffer(b"\x01\0\0\0\0\0\0\0", np.int64)
    batch = pack([frozen])
    assert batch.token_ids.flags.writeable
    assert not np.shares_memory(batch.token_ids, frozen)


@pytest.mark.parametrize(
    ("sequences", "prefixes", "parents"),
    [
        pytest.param([], [], None, id="nothing"),
        pytest.param([ids()], [], None, id="empty sequence"),
        pytest.param([ids(1), ids()], [], None, id="empty among others"),
        pytest.param([ids(1)], [ids()], [0], id="empty prefix"),
        pytest.param([ids(1)], [ids(2)], [1], id="prefix that is not there"),
        pytest.param([ids(1)], [ids(2)], [-2], id="negative prefix"),
        pytest.param([ids(1), ids(1)], [ids(2)], [0], id="too few parents"),
    ],
)
def test_nonsense_is_a_bug(sequences, prefixes, parents):
    with pytest.raises(ValueError, match="This is a bug"):
        pack(sequences, prefixes, parents)
