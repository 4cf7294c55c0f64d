"""Cuts a packed batch into tiles that stay in a CPU's cache throughout a layer.

A tile is whole short segments, or a chunk of one long segment. Keys and values live in an arena of
rows that tiles reuse within a layer: shared prefixes keep theirs at its start for the whole layer,
everything else is overwritten once no later tile needs it. Pure arithmetic: no tensors here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from embedfleet.batching.packing import PackedBatch

__all__ = ["Copy", "Span", "Tile", "TilePlan", "Write", "plan_tiles"]


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one segment inside a tile.

    Attributes:
        start: First column in the tile.
        stop: Column after the last.
        slot: Arena row of the segment's first key, the shared prefix's first if it has one.
        past: Keys in the arena before this span's own.
        sequence: Row of the result if the span holds the sequence's last token, else -1.
    """

    start: int
    stop: int
    slot: int
    past: int
    sequence: int

    @property
    def num_keys(self) -> int:
        """Keys that the span's last token attends to."""
        return self.past + self.stop - self.start


@dataclass(frozen=True, slots=True)
class Write:
    """Keys and values of columns [start, stop) go to the arena from `row` on."""

    start: int
    stop: int
    row: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A shared prefix's `length` arena rows at `source` go in front of a sequence, to `target`."""

    source: int
    target: int
    length: int


@dataclass(slots=True)
class Tile:
    """Rows [start, stop) of the batch. All writes come first, then copies, then attention."""

    start: int
    stop: int
    spans: list[Span] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Columns of the tile."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class TilePlan:
    """All tiles in order, and how many rows the arena needs."""

    tiles: tuple[Tile, ...]
    arena_rows: int


def plan_tiles(batch: PackedBatch, target_tokens: int, max_rows: int) -> TilePlan:
    """Group segments into tiles of about `target_tokens`.

    A tile closes once it has `target_tokens`; a longer segment becomes chunks of equal size, at
    most `target_tokens` each, in tiles of its own. So a tile has fewer than twice the target.

    Args:
        batch: What to cut.
        target_tokens: Of one tile.
        max_rows: Of the arena, for the segments of one tile with the copies of their prefixes; a
            segment that takes more is in a tile without others.
    """
    return _Planner(batch, target_tokens, max_rows).run()


class _Planner:
    def __init__(self, batch: PackedBatch, target_tokens: int, max_rows: int) -> None:
        self._bounds = batch.cu_seqlens.tolist()
        self._parents = [-1] * batch.num_prefixes + batch.prefix_of.tolist()
        self._num_prefixes = batch.num_prefixes
        self._target = target_tokens
        self._max_rows = max_rows
        self._base = self._bounds[batch.num_prefixes]  # prefixes lie in the arena as in the batch
        self._free = self._base
        self._arena_rows = self._base
        self._tiles: list[Tile] = []
        self._open: Tile | None = None

    def run(self) -> TilePlan:
        for segment in range(len(self._parents)):
            length = self._bounds[segment + 1] - self._bounds[segment]
            if self._free - self._base + self._shared(segment) + length > self._max_rows:
                self._open = None
            if length > self._target:
                self._open = None
                self._add(segment, -(-length // self._target))
                self._open = None
            else:
                self._add(segment, 1)
        return TilePlan(tuple(self._tiles), self._arena_rows)

    def _add(self, segment: int, num_chunks: int) -> None:
        start, stop = self._bounds[segment], self._bounds[segment + 1]
        tile = self._tile_at(start)
        slot, shared = self._place(segment, tile)
        for chunk in range(num_chunks):
            first = start + chunk * (stop - start) // num_chunks
            last = start + (chunk + 1) * (stop - start) // num_chunks
            tile = self._tile_at(first)
            past = shared + first - start
            ends = last == stop and segment >= self._num_prefixes
            sequence = segment - self._num_prefixes if ends else -1
            span = Span(first - tile.start, last - tile.start, slot, past, sequence)
            tile.stop = last
            tile.spans.append(span)
            _write(tile, span)
            if tile.num_tokens >= self._target or num_chunks > 1:
                self._open = None

    def _tile_at(self, start: int) -> Tile:
        if self._open is None:
            self._open = Tile(start, start)
            self._tiles.append(self._open)
        return self._open

    def _place(self, segment: int, tile: Tile) -> tuple[int, int]:
        """Choose the segment's arena row; also return the length of its shared prefix."""
        if segment < self._num_prefixes:
            return self._bounds[segment], 0
        if not any(span.slot >= self._base for span in tile.spans):
            self._free = self._base  # nothing from earlier tiles is needed any more
        slot, shared = self._free, self._shared(segment)
        if shared:
            tile.copies.append(Copy(self._bounds[self._parents[segment]], slot, shared))
        self._free += shared + self._bounds[segment + 1] - self._bounds[segment]
        self._arena_rows = max(self._arena_rows, self._free)
        return slot, shared

    def _shared(self, segment: int) -> int:
        """Return the length of the segment's shared prefix, 0 for none."""
        parent = self._parents[segment]
        return self._bounds[parent + 1] - self._bounds[parent] if parent >= 0 else 0


def _write(tile: Tile, span: Span) -> None:
    row = span.slot + span.past
    last = tile.writes[-1] if tile.writes else None
    if last is not None and last.row + last.stop - last.start == row and last.stop == span.start:
        tile.writes[-1] = Write(last.start, span.stop, last.row)
    else:
        tile.writes.append(Write(span.start, span.stop, row))
