"""Causal attention over a whole packed batch, row-major, with shared prefixes.

On CUDA one variable-length flash kernel; its causal mask is aligned to the bottom right, so a
sequence's keys may start with a prefix. Elsewhere one fused call a segment.

Shape legend: T tokens, K gathered keys, S sequences, H query heads, G key heads, D head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from embedfleet.batching.packing import PackedBatch

__all__ = ["RowAttention", "SegmentAttention", "VarlenAttention", "key_layout", "varlen_kernel"]

Kernel = Callable[..., Any]

_MASKED_QUERIES = 1024


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """Where the keys of each segment are.

    Attributes:
        rows: (K,) int64: rows of the batch, each segment's prefix in front of its own; None where
            that is every row once, in order.
        cu_keys: (P + S + 1,) int32: where a segment's keys start and end.
    """

    rows: npt.NDArray[np.int64] | None
    cu_keys: npt.NDArray[np.int32]


def key_layout(batch: PackedBatch) -> KeyLayout:
    """Lay every sequence's keys out behind its prefix's."""
    if batch.num_prefixes == 0:
        return KeyLayout(None, batch.cu_seqlens)
    bounds = batch.cu_seqlens
    ranges = [np.arange(a, b) for a, b in pairwise(bounds.tolist())]
    parents = [-1] * batch.num_prefixes + batch.prefix_of.tolist()
    parts = [
        np.concatenate((ranges[parent], own)) if parent >= 0 else own
        for parent, own in zip(parents, ranges, strict=True)
    ]
    lengths = np.array([len(part) for part in parts])
    cu_keys = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return KeyLayout(np.concatenate(parts), cu_keys)


class RowAttention(Protocol):
    """Attention of one batch, planned once and run in every layer."""

    def all_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from every token: q (T, H, D), k and v (T, G, D) give (T, H D)."""
        ...

    def last_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from each sequence's last token: q (S, H, D), k and v (T, G, D) give (S, H D)."""
        ...


def varlen_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel | None:
    """Give the flash kernel, where it takes this device, type and head."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type != "cuda" or not half or head_dim % 8 or head_dim > 256:
        return None
    # Not above: it brings torch's compiler with it, which doubles what importing torch takes.
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


class VarlenAttention:
    """One kernel for all segments.

    Args:
        batch: Its segments.
        device: Where queries, keys and values will be.
        kernel: Takes what `torch.nn.attention.varlen.varlen_attn` takes.
    """

    def __init__(self, batch: PackedBatch, device: torch.device, kernel: Kernel) -> None:
        self._kernel = kernel
        # Before torch 2.12 the kernel took fewer key heads without being told.
        grouped = "enable_gqa" in inspect.signature(kernel).parameters
        self._options = {"enable_gqa": True} if grouped else {}
        layout, num_prefixes = key_layout(batch), batch.num_prefixes
        lengths_q, lengths_k = np.diff(batch.cu_seqlens), np.diff(layout.cu_keys)
        self._max_q, self._max_k = int(lengths_q.max()), int(lengths_k.max())
        self._cu_q = _to(batch.cu_seqlens, device)
        # The same object where lengths agree: that is how the kernel's dispatcher knows.
        self._cu_k = self._cu_q if layout.rows is None else _to(layout.cu_keys, device)
        self._rows = None if layout.rows is None else _to(layout.rows, device)
        self._cu_one = torch.arange(batch.num_sequences + 1, dtype=torch.int32, device=device)
        skipped = int(layout.cu_keys[num_prefixes])
        self._last_rows = None if self._rows is None else self._rows[skipped:]
        self._cu_last = _to(layout.cu_keys[num_prefixes:] - np.int32(skipped), device)
        self._max_last = int(lengths_k[num_prefixes:].max())

    def all_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from every token."""
        if self._rows is not None:
            k, v = k[self._rows], v[self._rows]
        mixed: torch.Tensor = self._kernel(
            q,
            k,
            v,
            self._cu_q,
            self._cu_k,
            self._max_q,
            self._max_k,
            window_size=(-1, 0),
            **self._options,
        )
        return mixed.flatten(1)

    def last_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from last tokens."""
        if self._last_rows is not None:
            k, v = k[self._last_rows], v[self._last_rows]
        # One query a sequence sees every key: no mask.
        mixed: torch.Tensor = self._kernel(
            q, k, v, self._cu_one, self._cu_last, 1, self._max_last, **self._options
        )
        return mixed.flatten(1)


class SegmentAttention:
    """One fused call a segment, on any device and in any type."""

    def __init__(self, batch: PackedBatch, device: torch.device) -> None:
        layout = key_layout(batch)
        self._bounds = batch.cu_seqlens.tolist()
        self._key_bounds = layout.cu_keys.tolist()
        self._rows = None if layout.rows is None else _to(layout.rows, device)
        self._num_prefixes = batch.num_prefixes

    def all_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from every token."""
        if self._rows is not None:
            k, v = k[self._rows], v[self._rows]
        mixed = torch.empty_like(q)
        for i in range(len(self._bounds) - 1):
            rows = slice(self._bounds[i], self._bounds[i + 1])
            keys = slice(self._key_bounds[i], self._key_bounds[i + 1])
            _attend_segment(q[rows], k[keys], v[keys], mixed[rows])
        return mixed.flatten(1)

    def last_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from last tokens."""
        if self._rows is not None:
            k, v = k[self._rows], v[self._rows]
        mixed = torch.empty_like(q)
        for row in range(len(q)):
            i = self._num_prefixes + row
            keys = slice(self._key_bounds[i], self._key_bounds[i + 1])
            _attend_segment(q[row : row + 1], k[keys], v[keys], mixed[row : row + 1])
        return mixed.flatten(1)


def _attend_segment(
    q_nHD: torch.Tensor, k_KGD: torch.Tensor, v_KGD: torch.Tensor, out_nHD: torch.Tensor
) -> None:
    n, num_keys = len(q_nHD), len(k_KGD)
    k_GKD, v_GKD = k_KGD.transpose(0, 1).unsqueeze(0), v_KGD.transpose(0, 1).unsqueeze(0)
    if n == num_keys:
        out_nHD.copy_(_sdpa(q_nHD, k_GKD, v_GKD, None, causal=True))
        return
    # A mask of a block of queries only: a long sequence's whole mask would not fit.
    for start in range(0, n, _MASKED_QUERIES):
        stop = min(n, start + _MASKED_QUERIES)
        keys = num_keys - n + stop
        mask = torch.ones(stop - start, keys, dtype=torch.bool, device=q_nHD.device)
        mask = mask.tril_(keys - (stop - start))
        out_nHD[start:stop] = _sdpa(
            q_nHD[start:stop], k_GKD[:, :, :keys], v_GKD[:, :, :keys], mask, causal=False
        )


def _sdpa(
    q_nHD: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    causal: bool,
) -> torch.Tensor:
    q = q_nHD.transpose(0, 1).unsqueeze(0)
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True
    )
    return mixed[0].transpose(0, 1)


def _to(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
