"""Causal attention over a whole packed batch, row-major, with shared prefixes.

On CUDA one variable-length flash kernel; its causal mask is aligned to the bottom right, so a
sequence's keys may start with a prefix. Elsewhere one fused call a segment.

Shape legend: T tokens, K gathered keys, S sequences, H query heads, G key heads, D head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
_GATHERED_KEYS = 262_144  # 1 GiB with the values, in 8 heads of 128 and two bytes


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


@dataclass(frozen=True, slots=True)
class _Call:
    """One run of the kernel over consecutive segments.

    Attributes:
        queries: Rows of the queries.
        rows: (K,) rows of the keys; None where that is all of them.
    """

    queries: slice
    rows: torch.Tensor | None
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    max_q: int
    max_k: int


class VarlenAttention:
    """One kernel for all segments, or for as many as may have their keys gathered at once.

    Args:
        batch: Its segments.
        device: Where queries, keys and values will be.
        kernel: Takes what `torch.nn.attention.varlen.varlen_attn` takes.
        gathered_keys: Keys that may lie gathered behind their prefixes at a time; one segment may
            have more.
    """

    def __init__(
        self,
        batch: PackedBatch,
        device: torch.device,
        kernel: Kernel,
        gathered_keys: int = _GATHERED_KEYS,
    ) -> None:
        self._kernel = kernel
        # Before torch 2.12 the kernel took fewer key heads without being told.
        grouped = "enable_gqa" in inspect.signature(kernel).parameters
        self._options = {"enable_gqa": True} if grouped else {}
        layout, num_prefixes = key_layout(batch), batch.num_prefixes
        last = np.arange(batch.num_sequences + 1, dtype=np.int32)
        cut = partial(_calls, rows=layout.rows, device=device, gathered_keys=gathered_keys)
        self._all = cut(batch.cu_seqlens, layout.cu_keys)
        self._last = cut(last, layout.cu_keys[num_prefixes:])

    def all_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from every token."""
        return self._run(self._all, q, k, v, window_size=(-1, 0))

    def last_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from last tokens."""
        # One query a sequence sees every key: no mask.
        return self._run(self._last, q, k, v)

    def _run(
        self,
        calls: list[_Call],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        mixed: list[torch.Tensor] = [
            self._kernel(
                q[call.queries],
                k if call.rows is None else k[call.rows],
                v if call.rows is None else v[call.rows],
                call.cu_q,
                call.cu_k,
                call.max_q,
                call.max_k,
                **options,
                **self._options,
            )
            for call in calls
        ]
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed)).flatten(1)


def _calls(
    cu_q: npt.NDArray[np.int32],
    cu_keys: npt.NDArray[np.int32],
    *,
    rows: npt.NDArray[np.int64] | None,
    device: torch.device,
    gathered_keys: int,
) -> list[_Call]:
    """Cut segments, whose queries start at `cu_q`, where their keys would be too many."""
    cuts = [0, len(cu_q) - 1] if rows is None else _cuts(cu_keys.tolist(), gathered_keys)
    calls = []
    for first, stop in pairwise(cuts):
        q, keys = cu_q[first : stop + 1], cu_keys[first : stop + 1]
        own = _to(q - q[0], device)
        calls.append(
            _Call(
                queries=slice(int(q[0]), int(q[-1])),
                rows=None if rows is None else _to(rows[keys[0] : keys[-1]], device),
                cu_q=own,
                # The same object where lengths agree: that is how the kernel's dispatcher knows.
                cu_k=own if cu_keys is cu_q else _to(keys - keys[0], device),
                max_q=int(np.diff(q).max()),
                max_k=int(np.diff(keys).max()),
            )
        )
    return calls


def _cuts(cu_keys: list[int], gathered_keys: int) -> list[int]:
    """Bound groups of consecutive segments: each one segment, or no more keys than that."""
    cuts = [0]
    for segment, stop in enumerate(cu_keys[1:]):
        if stop - cu_keys[cuts[-1]] > gathered_keys and segment > cuts[-1]:
            cuts.append(segment)
    return [*cuts, len(cu_keys) - 1]


class SegmentAttention:
    """One fused call a segment, on any device and in any type."""

    def __init__(self, batch: PackedBatch, device: torch.device) -> None:
        own = [slice(start, stop) for start, stop in pairwise(batch.cu_seqlens.tolist())]
        parents = [-1] * batch.num_prefixes + batch.prefix_of.tolist()
        self._own = own
        self._prefixes = [own[parent] if parent >= 0 else None for parent in parents]
        self._num_prefixes = batch.num_prefixes

    def all_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from every token."""
        mixed = torch.empty_like(q)
        for i, rows in enumerate(self._own):
            _attend_segment(q[rows], self._keys(k, i), self._keys(v, i), mixed[rows])
        return mixed.flatten(1)

    def last_tokens(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend from last tokens."""
        mixed = torch.empty_like(q)
        for row in range(len(q)):
            i, one = self._num_prefixes + row, slice(row, row + 1)
            _attend_segment(q[one], self._keys(k, i), self._keys(v, i), mixed[one])
        return mixed.flatten(1)

    def _keys(self, x: torch.Tensor, segment: int) -> torch.Tensor:
        """Gather one segment's keys or values behind its prefix's, and no other's beside them."""
        own, prefix = self._own[segment], self._prefixes[segment]
        return x[own] if prefix is None else torch.cat((x[prefix], x[own]))


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
