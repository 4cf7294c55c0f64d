"""The Qwen3 decoder for GPUs, and for CPUs that multiply bfloat16 in hardware: row-major.

All tokens of the batch go through a layer together, no padding anywhere. Residuals are accumulated
by the matrix products themselves.

Shape legend: T tokens, S sequences, h hidden, H query heads, G key heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from embedfleet.batching.packing import PackedBatch
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.torch.attention_rows import (
    RowAttention,
    SegmentAttention,
    VarlenAttention,
    varlen_kernel,
)
from embedfleet.engine.torch.device import Placement
from embedfleet.engine.torch.linear import DenseLinear, Linear, PrepackedLinear
from embedfleet.engine.torch.rotary import RotaryTable
from embedfleet.engine.torch.weights import RawLayer, Weights

__all__ = ["RowDecoder", "RowLayer", "RowRun"]


@dataclass(frozen=True, slots=True)
class RowLayer:
    """Parameters of one layer.

    Attributes:
        projections: One fused matrix for queries, keys and values; in the last layer two, since
            queries are needed for pooled tokens only.
        qk_norm: (H + G, D).
    """

    projections: tuple[Linear, ...]
    output: Linear
    gate_up: Linear
    down: Linear
    input_norm: torch.Tensor
    post_norm: torch.Tensor
    qk_norm: torch.Tensor


@dataclass(slots=True)
class RowRun:
    """One batch on its way through the layers; `hidden_Th` is replaced by every layer."""

    hidden_Th: torch.Tensor
    cos_T1D: torch.Tensor
    sin_T1D: torch.Tensor
    last_rows_S: torch.Tensor
    attention: RowAttention


class RowDecoder:
    """Runs layers over whole batches. Holds no state between batches.

    Args:
        config: The model's shape.
        rotary: Angles of positions, on the device.
        placement: Where and in which type.
        prepacked: Weights in oneDNN's layout; only CPUs that multiply bfloat16 take it.
    """

    def __init__(
        self, config: ModelConfig, rotary: RotaryTable, placement: Placement, prepacked: bool
    ) -> None:
        self._config = config
        self._rotary = rotary
        self._device = placement.device
        self._dtype = placement.dtype
        self._kernel = varlen_kernel(placement.device, placement.dtype, config.head_dim)
        self._prepacked = prepacked

    @property
    def kernels(self) -> dict[str, str]:
        """What runs, for the engine's facts."""
        linear = "onednn prepacked" if self._prepacked else f"{self._device.type} blas"
        return {"attention": "varlen flash" if self._kernel else "sdpa", "linear": linear}

    def finish(self, index: int, raw: RawLayer) -> RowLayer:
        """Pack the matrices for the device."""
        c = self._config
        pack = PrepackedLinear if self._prepacked else DenseLinear
        sizes = [c.num_query_heads * c.head_dim, 2 * c.num_kv_heads * c.head_dim]
        last = index == c.num_layers - 1
        qk_norm = torch.cat(
            (
                raw.norms["q"].expand(c.num_query_heads, -1),
                raw.norms["k"].expand(c.num_kv_heads, -1),
            )
        )
        return RowLayer(
            tuple(pack(part) for part in (torch.split(raw.qkv, sizes) if last else (raw.qkv,))),
            pack(raw.output),
            pack(raw.gate_up),
            pack(raw.down),
            raw.norms["input"].to(self._dtype),
            raw.norms["post"].to(self._dtype),
            qk_norm.to(self._dtype),
        )

    def start(self, batch: PackedBatch, weights: Weights[RowLayer]) -> RowRun:
        """Copy the batch to the device and look up the embeddings."""
        token_ids, positions, last_rows = (
            self._upload(array)
            for array in (
                batch.token_ids,
                batch.positions,
                batch.cu_seqlens[batch.num_prefixes + 1 :].astype(np.int64) - 1,
            )
        )
        angles = self._rotary.angles(positions, int(batch.positions.max())).unsqueeze(1)
        attention: RowAttention
        if self._kernel is None:
            attention = SegmentAttention(batch, self._device)
        else:
            attention = VarlenAttention(batch, self._device, self._kernel)
        return RowRun(
            F.embedding(token_ids, weights.embedding).to(self._dtype),
            angles.cos().to(self._dtype),
            angles.sin().to(self._dtype),
            last_rows,
            attention,
        )

    def layer(self, layer: RowLayer, run: RowRun) -> None:
        """Advance every token by one layer."""
        c = self._config
        qkv = layer.projections[0](self._norm(run.hidden_Th, layer.input_norm))
        qkv = qkv.view(len(qkv), -1, c.head_dim)
        num_rotated = c.num_query_heads + c.num_kv_heads
        qk = self._position(qkv[:, :num_rotated], layer.qk_norm, run.cos_T1D, run.sin_T1D)
        q, k = torch.split(qk, [c.num_query_heads, c.num_kv_heads], dim=1)
        mixed = run.attention.all_tokens(q, k, qkv[:, num_rotated:])
        run.hidden_Th = self._mlp(layer, layer.output.add_to(run.hidden_Th, mixed))

    def last_layer(self, layer: RowLayer, run: RowRun) -> torch.Tensor:
        """Run the last layer for pooled tokens only: (S, h), before the final norm.

        Every token still gives its keys and values; nothing else of it is ever looked at.
        """
        c = self._config
        last, norms = (
            run.last_rows_S,
            torch.split(layer.qk_norm, [c.num_query_heads, c.num_kv_heads]),
        )
        normed = self._norm(run.hidden_Th, layer.input_norm)
        kv = layer.projections[1](normed).view(len(normed), -1, c.head_dim)
        k, v = kv.chunk(2, dim=1)
        k = self._position(k, norms[1], run.cos_T1D, run.sin_T1D)
        q = layer.projections[0](normed[last]).view(len(last), -1, c.head_dim)
        q = self._position(q, norms[0], run.cos_T1D[last], run.sin_T1D[last])
        mixed = run.attention.last_tokens(q, k, v)
        return self._mlp(layer, layer.output.add_to(run.hidden_Th[last], mixed))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self._config.rms_norm_eps)

    def _position(
        self, x: torch.Tensor, norm: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """Norm each head of x (T, heads, D) and rotate it by its position."""
        x = F.rms_norm(x, (self._config.head_dim,), None, self._config.rms_norm_eps) * norm
        rotated = torch.empty_like(x)
        (a, b), (out_a, out_b) = x.chunk(2, -1), rotated.chunk(2, -1)
        torch.mul(a, cos, out=out_a).addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=out_b).addcmul_(a, sin)
        return rotated

    def _mlp(self, layer: RowLayer, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = layer.gate_up(self._norm(hidden, layer.post_norm)).chunk(2, dim=-1)
        return layer.down.add_to(hidden, F.silu(gate, inplace=True).mul_(up))

    def _upload(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor
