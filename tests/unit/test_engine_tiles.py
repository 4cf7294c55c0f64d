"""Tiles cover a batch once, stay bounded, and never overwrite keys that are still needed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedfleet.batching.packing import PackedBatch, pack
from embedfleet.engine.torch.split import halves
from embedfleet.engine.torch.tiles import plan_tiles

TARGET = 8
ROWS = 50


def tokens(lengths: list[int], first: int = 0) -> list[np.ndarray]:
    bounds = np.cumsum([first, *lengths])
    return [np.arange(a, b) for a, b in pairwise(bounds)]


@st.composite
def batches(draw: st.DrawFn) -> PackedBatch:
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    prefix_lengths = draw(st.lists(st.integers(1, 30), max_size=3))
    parent = st.integers(-1, len(prefix_lengths) - 1)
    parents = draw(st.lists(parent, min_size=len(lengths), max_size=len(lengths)))
    prefixes = tokens(prefix_lengths)
    return pack(tokens(lengths, sum(prefix_lengths)), prefixes, parents)


@settings(max_examples=200)
@given(batches())
def test_every_span_finds_exactly_its_own_keys(batch: PackedBatch) -> None:
    """Run the plan on token ids in place of keys: each span must see prefix, past and itself."""
    plan = plan_tiles(batch, TARGET, ROWS)
    arena = np.full(plan.arena_rows, -1)
    segments = np.split(batch.token_ids, batch.cu_seqlens[1:-1])
    whole = segments[: batch.num_prefixes] + [
        np.concatenate((segments[parent], ids)) if parent >= 0 else ids
        for parent, ids in zip(batch.prefix_of, segments[batch.num_prefixes :], strict=True)
    ]
    expected = {int(ids[-1]): ids for ids in whole}
    next_row, pooled = 0, {}
    base = int(batch.cu_seqlens[batch.num_prefixes])
    longest = max(len(ids) for ids in whole)
    assert plan.arena_rows - base <= max(ROWS, longest)
    for tile in plan.tiles:
        assert tile.start == next_row
        next_row = tile.stop
        assert tile.num_tokens < 2 * TARGET
        own = batch.token_ids[tile.start : tile.stop]
        for write in tile.writes:
            arena[write.row : write.row + write.stop - write.start] = own[write.start : write.stop]
        for copy in tile.copies:
            source = arena[copy.source : copy.source + copy.length]
            arena[copy.target : copy.target + copy.length] = source
        for span in tile.spans:
            keys = arena[span.slot : span.slot + span.num_keys]
            assert keys[-1] == own[span.stop - 1]
            if span.sequence >= 0:
                np.testing.assert_array_equal(keys, expected[int(keys[-1])])
                pooled[span.sequence] = int(keys[-1])
    assert next_row == batch.num_tokens
    assert pooled == {i: int(ids[-1]) for i, ids in enumerate(segments[batch.num_prefixes :])}


def test_a_long_sequence_is_cut_evenly() -> None:
    plan = plan_tiles(pack(tokens([17])), TARGET, ROWS)
    assert [tile.num_tokens for tile in plan.tiles] == [5, 6, 6], "not 8, 8 and a slow tile of 1"


def test_the_arena_holds_one_tile_not_the_batch() -> None:
    plan = plan_tiles(pack(tokens([8] * 50)), TARGET, ROWS)
    assert plan.arena_rows == 8


def test_a_tile_copies_a_long_prefix_for_few_sequences() -> None:
    prefix, *sequences = tokens([20, 1, 1, 1, 1, 1])
    plan = plan_tiles(pack(sequences, [prefix], [0] * 5), TARGET, ROWS)
    assert [tile.num_tokens for tile in plan.tiles] == [6, 7, 7, 2, 2, 1]
    assert plan.arena_rows == 20 + 2 * 21, "two copies are 42 of 50 rows, three would be 63"


def test_halves_keep_order_and_only_needed_prefixes() -> None:
    prefixes, sequences = tokens([3, 4]), tokens([2, 5, 1, 6], 7)
    first, second = halves(pack(sequences, prefixes, [1, -1, 0, 0]))
    assert first.num_prefixes == second.num_prefixes == 1
    np.testing.assert_array_equal(first.token_ids, np.concatenate([prefixes[1], *sequences[:2]]))
    np.testing.assert_array_equal(second.token_ids, np.concatenate([prefixes[0], *sequences[2:]]))
    assert first.prefix_of.tolist() == [0, -1]
    assert second.prefix_of.tolist() == [0, 0]


def test_one_sequence_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="This is a bug"):
        halves(pack(tokens([3])))
