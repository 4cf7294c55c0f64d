"""Causal attention of one span on a CPU, exact for any length.

Up to a few hundred keys, blocks of queries against just the keys they may see: unlike a fused
kernel this never computes what the mask throws away. Beyond, a fused kernel that never holds a
score matrix; keys before the span and the span's own are attended apart and merged by their
log-sum-exp (as in arXiv 2205.14135, section 3.1).

Shape legend: n queries, K keys, G key/value heads, R query heads a key head, D head dimension.
"""

from __future__ import annotations

import torch

__all__ = ["attend"]

_BLOCK_QUERIES = 64
_DENSE_KEYS = 1024

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_masks: dict[int, torch.Tensor] = {}


def attend(
    q_GnRD: torch.Tensor, k_KGD: torch.Tensor, v_KGD: torch.Tensor, out_nGRD: torch.Tensor
) -> None:
    """Let query i see keys up to K - n + i, and write what it gathers to `out_nGRD`.

    Queries come scaled by 1 / sqrt(D).
    """
    if len(k_KGD) <= _DENSE_KEYS:
        _dense(q_GnRD, k_KGD, v_KGD, out_nGRD)
    else:
        _fused(q_GnRD, k_KGD, v_KGD, out_nGRD)


def _dense(
    q_GnRD: torch.Tensor, k_KGD: torch.Tensor, v_KGD: torch.Tensor, out: torch.Tensor
) -> None:
    G, n, R, D = q_GnRD.shape
    past = len(k_KGD) - n
    k_GDK, v_GKD = k_KGD.permute(1, 2, 0), v_KGD.transpose(0, 1)
    for start in range(0, n, _BLOCK_QUERIES):
        stop = min(n, start + _BLOCK_QUERIES)
        rows, keys = stop - start, past + stop
        scores = torch.bmm(q_GnRD[:, start:stop].reshape(G, rows * R, D), k_GDK[:, :, :keys])
        if rows > 1:
            recent = scores.view(G, rows, R, keys)[..., past + start :]
            recent.masked_fill_(_future(rows), float("-inf"))
        mixed = torch.bmm(torch.softmax(scores, -1), v_GKD[:, :keys])
        out[start:stop] = mixed.view(G, rows, R, D).transpose(0, 1)


def _future(rows: int) -> torch.Tensor:
    """Positions a query may not see, (rows, 1, rows)."""
    mask = _masks.get(rows)
    if mask is None:
        mask = torch.ones(rows, rows, dtype=torch.bool).triu_(1).unsqueeze(1)
        _masks[rows] = mask
    return mask


def _fused(
    q_GnRD: torch.Tensor, k_KGD: torch.Tensor, v_KGD: torch.Tensor, out: torch.Tensor
) -> None:
    G, n, R, D = q_GnRD.shape
    past = len(k_KGD) - n
    q_HnD = q_GnRD.transpose(1, 2).reshape(1, G * R, n, D)
    k_HnD, v_HnD = (
        t[past:].transpose(0, 1).unsqueeze(1).expand(G, R, n, D).reshape(1, G * R, n, D)
        for t in (k_KGD, v_KGD)
    )
    own, own_lse = _flash(q_HnD, k_HnD, v_HnD, 0.0, True, scale=1.0)
    own_GnRD = own.view(G, R, n, D).transpose(1, 2)
    if past:
        k_GpD, v_GpD = (t[:past].transpose(0, 1).unsqueeze(0) for t in (k_KGD, v_KGD))
        # All R query heads of a key head see every past key: one product, keys not repeated.
        before, before_lse = _flash(
            q_GnRD.reshape(1, G, n * R, D), k_GpD, v_GpD, 0.0, False, scale=1.0
        )
        own_lse_GnR = own_lse.view(G, R, n).transpose(1, 2)
        share = torch.sigmoid(before_lse.view(G, n, R) - own_lse_GnR).unsqueeze(-1)
        own_GnRD = torch.lerp(own_GnRD, before.view(G, n, R, D), share)
    out.copy_(own_GnRD.transpose(0, 1))
