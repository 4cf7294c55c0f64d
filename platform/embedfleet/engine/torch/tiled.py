"""The Qwen3 decoder for CPUs in float32: tile by tile, feature-major.

Activations are (features, tokens): a weight times activations is then the orientation that MKL runs
fastest at every number of tokens, without a second, packed copy of the weights. Norm weights are
folded into the matrix that follows, rotary pairs lie side by side so that a rotation is one complex
product, residuals are accumulated by the matrix products themselves.

Shape legend: m tokens of a tile, M the same rounded up, p pooled tokens, h hidden, I intermediate,
H query heads, G key heads, R = H / G, D head dimension, A arena rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from embedfleet.batching.packing import PackedBatch
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.torch.attention import attend
from embedfleet.engine.torch.rotary import RotaryTable
from embedfleet.engine.torch.tiles import Tile, TilePlan, plan_tiles
from embedfleet.engine.torch.weights import RawLayer, Weights

__all__ = ["TiledDecoder", "TiledLayer"]

_TILE_TOKENS = 512
_TILE_ROWS = 32_768  # keys and values of a tile take no more than those of the longest text
_ALIGNED_COLUMNS = 8  # rows of activations that start off a vector's boundary cost MKL up to 40 %


@dataclass(frozen=True, slots=True)
class TiledLayer:
    """Parameters of one layer, norms folded in, all float32.

    Attributes:
        q: (H D, h), a view of the first rows of `qkv`.
        kv: (2 G D, h), a view of the rest.
        q_norm: (D,), times 1 / sqrt(D): attention needs no scale of its own.
    """

    qkv: torch.Tensor
    q: torch.Tensor
    kv: torch.Tensor
    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Run:
    """One batch on its way through the layers."""

    plan: TilePlan
    hidden: list[torch.Tensor]  # (h, M) a tile, zeros beyond m
    rotations: list[torch.Tensor]  # complex64 (m, 1, D / 2) a tile
    keys_AGD: torch.Tensor
    values_AGD: torch.Tensor
    num_sequences: int


class TiledDecoder:
    """Runs layers over tiles. Holds no state between batches."""

    def __init__(self, config: ModelConfig, rotary: RotaryTable) -> None:
        self._config = config
        self._rotary = rotary
        pairs = torch.arange(config.head_dim).view(2, -1).t().flatten()
        heads = config.num_query_heads + config.num_kv_heads
        offsets = torch.arange(heads).unsqueeze(1) * config.head_dim
        self._pairs = pairs
        self._rotated_rows = (offsets + pairs).flatten()

    @property
    def kernels(self) -> dict[str, str]:
        """What runs, for the engine's facts."""
        return {"attention": "blocked, flash beyond 1024 keys", "linear": "mkl feature-major"}

    def finish(self, index: int, raw: RawLayer) -> TiledLayer:
        """Fold norms and reorder rotary pairs, in place."""
        c = self._config
        raw.qkv.mul_(raw.norms["input"])
        raw.gate_up.mul_(raw.norms["post"])
        num_rotated = len(self._rotated_rows)
        raw.qkv[:num_rotated] = raw.qkv[self._rotated_rows]
        num_query_rows = c.num_query_heads * c.head_dim
        return TiledLayer(
            raw.qkv,
            raw.qkv[:num_query_rows],
            raw.qkv[num_query_rows:],
            raw.output,
            raw.gate_up,
            raw.down,
            raw.norms["q"][self._pairs] * c.head_dim**-0.5,
            raw.norms["k"][self._pairs],
        )

    def start(self, batch: PackedBatch, weights: Weights[TiledLayer]) -> _Run:
        """Look up the embeddings and plan the tiles."""
        c = self._config
        plan = plan_tiles(batch, _TILE_TOKENS, _TILE_ROWS)
        token_ids = torch.from_numpy(batch.token_ids)
        positions = torch.from_numpy(batch.positions)
        angles = self._rotary.angles(positions, int(batch.positions.max()))
        rotations = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
        hidden = []
        for tile in plan.tiles:
            h_hM = torch.zeros(c.hidden_size, _aligned(tile.num_tokens))
            rows = weights.embedding[token_ids[tile.start : tile.stop]]
            h_hM[:, : tile.num_tokens] = rows.t()
            hidden.append(h_hM)
        arena = torch.empty(2, plan.arena_rows, c.num_kv_heads, c.head_dim)
        per_tile = [rotations[t.start : t.stop] for t in plan.tiles]
        return _Run(plan, hidden, per_tile, arena[0], arena[1], batch.num_sequences)

    def layer(self, layer: TiledLayer, run: _Run) -> None:
        """Advance every tile by one layer."""
        num_query_rows = len(layer.q)
        for i, tile in enumerate(run.plan.tiles):
            h_hM = run.hidden[i]
            qkv_m = torch.mm(layer.qkv, self._normed(h_hM))[:, : tile.num_tokens]
            self._store(layer, qkv_m[num_query_rows:], tile, run, i)
            q_GmRD = self._queries(layer, qkv_m[:num_query_rows], run.rotations[i])
            spans = [(s.start, s.stop, s.slot, s.num_keys) for s in tile.spans]
            h_hM.addmm_(layer.output, self._attend(q_GmRD, spans, run).t())
            self._mlp(layer, h_hM)

    def last_layer(self, layer: TiledLayer, run: _Run) -> torch.Tensor:
        """Run the last layer for pooled tokens only: (S, h), before the final norm.

        Every token still gives its keys and values; nothing else of it is ever looked at.
        """
        c = self._config
        num_columns = _aligned(run.num_sequences)
        h_hS = torch.zeros(c.hidden_size, num_columns)
        mixed_S = torch.zeros(num_columns, c.num_query_heads * c.head_dim)
        for i, tile in enumerate(run.plan.tiles):
            h_hM = run.hidden[i]
            normed = self._normed(h_hM)
            self._store(layer, torch.mm(layer.kv, normed)[:, : tile.num_tokens], tile, run, i)
            pooled = [span for span in tile.spans if span.sequence >= 0]
            if not pooled:
                continue
            columns = torch.tensor([span.stop - 1 for span in pooled])
            rows = torch.tensor([span.sequence for span in pooled])
            q_p = torch.mm(layer.q, normed[:, columns])
            q_GpRD = self._queries(layer, q_p, run.rotations[i][columns])
            spans = [(j, j + 1, span.slot, span.num_keys) for j, span in enumerate(pooled)]
            mixed_S[rows] = self._attend(q_GpRD, spans, run)[: len(pooled)]
            h_hS[:, rows] = h_hM[:, columns]
        h_hS.addmm_(layer.output, mixed_S.t())
        for chunk in torch.split(h_hS, _TILE_TOKENS, dim=1):
            self._mlp(layer, chunk)
        return h_hS.t()[: run.num_sequences]

    def _normed(self, h_hM: torch.Tensor) -> torch.Tensor:
        scale_M = (h_hM * h_hM).mean(0).add_(self._config.rms_norm_eps).rsqrt_()
        return h_hM * scale_M

    def _mlp(self, layer: TiledLayer, h_hM: torch.Tensor) -> None:
        gate, up = torch.mm(layer.gate_up, self._normed(h_hM)).chunk(2)
        h_hM.addmm_(layer.down, F.silu(gate, inplace=True).mul_(up))

    def _store(
        self, layer: TiledLayer, kv_m: torch.Tensor, tile: Tile, run: _Run, index: int
    ) -> None:
        """Put a tile's keys and values, (2 G D, m), in the arena."""
        c = self._config
        rotation = run.rotations[index]
        k_m, v_m = kv_m.chunk(2)
        k_mGD = self._heads(k_m, layer.k_norm)
        for write in tile.writes:
            rows = slice(write.row, write.row + write.stop - write.start)
            columns = slice(write.start, write.stop)
            _rotate(k_mGD[columns], rotation[columns], run.keys_AGD[rows])
            run.values_AGD[rows].view(-1, c.num_kv_heads * c.head_dim).copy_(v_m[:, columns].t())
        for copy in tile.copies:
            for arena in (run.keys_AGD, run.values_AGD):
                source = arena[copy.source : copy.source + copy.length]
                arena[copy.target : copy.target + copy.length] = source

    def _queries(
        self, layer: TiledLayer, q_m: torch.Tensor, rotation: torch.Tensor
    ) -> torch.Tensor:
        """Norm, rotate and scale queries (H D, m): (G, m, R, D)."""
        c = self._config
        q_mHD = self._heads(q_m, layer.q_norm)
        num_tokens, R = len(q_mHD), c.num_query_heads // c.num_kv_heads
        q_GmRD = torch.empty(c.num_kv_heads, num_tokens, R, c.head_dim)
        q_mGRD = q_mHD.view(num_tokens, c.num_kv_heads, R, c.head_dim)
        _rotate(q_mGRD, rotation.unsqueeze(1), q_GmRD.transpose(0, 1))
        return q_GmRD

    def _heads(self, x_m: torch.Tensor, norm_D: torch.Tensor) -> torch.Tensor:
        """Transpose (heads D, m) to rows of heads and norm each: (m, heads, D)."""
        x = x_m.t().contiguous().view(x_m.shape[1], -1, self._config.head_dim)
        # The library's own norm has no fused kernel on CPUs: five passes, three more than these.
        root_mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        root_mean.div_(self._config.head_dim).add_(self._config.rms_norm_eps)
        return x.mul_(root_mean.rsqrt_()).mul_(norm_D)

    def _attend(
        self, q_GmRD: torch.Tensor, spans: Iterable[tuple[int, int, int, int]], run: _Run
    ) -> torch.Tensor:
        """Attend span by span, each (start, stop, slot, keys): (M, H D)."""
        G, m, R, D = q_GmRD.shape
        mixed_MGRD = torch.empty(_aligned(m), G, R, D)
        mixed_MGRD[m:] = 0
        for start, stop, slot, num_keys in spans:
            keys = slice(slot, slot + num_keys)
            attend(
                q_GmRD[:, start:stop],
                run.keys_AGD[keys],
                run.values_AGD[keys],
                mixed_MGRD[start:stop],
            )
        return mixed_MGRD.view(-1, G * R * D)


def _aligned(num_columns: int) -> int:
    return -(-num_columns // _ALIGNED_COLUMNS) * _ALIGNED_COLUMNS


def _rotate(x: torch.Tensor, rotation: torch.Tensor, out: torch.Tensor) -> None:
    """Turn neighbouring pairs of x (m, ..., D) by complex (m, ..., D / 2) into `out`."""
    torch.mul(_pairs(x), rotation, out=_pairs(out))


def _pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(torch.unflatten(x, -1, (-1, 2)))
