"""In-batch negatives of all workers: vectors gathered with their gradient.

Each worker takes the loss of its own rows against everyone's, so that no row is computed twice. Its
part is scaled so that the mean over workers, of losses as of gradients, is that of the whole batch
in one process: what averages gradients between workers, as DistributedDataParallel and FSDP do,
then gives the gradients of the whole. One process needs no process group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from embedfleet.tuning.losses import (
    Contrast,
    ContrastiveSettings,
    Pool,
    contrastive_loss,
    matryoshka_loss,
)

__all__ = ["gather_pool", "gather_rows", "share", "whole_batch_loss"]


def whole_batch_loss(
    vectors: Contrast,
    settings: ContrastiveSettings,
    dimensions: Mapping[int, float] | None = None,
) -> Tensor:
    """Take this worker's part of the contrastive loss of the batch that all workers hold.

    Every worker calls it, with at least one row; how many may differ. Hard negatives stay with
    their row.

    Args:
        vectors: This worker's rows.
        settings: Temperature and margin.
        dimensions: Weight by dimension, as for the Matryoshka loss; None takes whole vectors.

    Returns:
        A scalar whose mean over workers is the loss of the whole batch.
    """
    pool = gather_pool(vectors)
    if dimensions is None:
        mean = contrastive_loss(vectors, settings, pool)
    else:
        mean = matryoshka_loss(vectors, settings, dimensions, pool)
    return share(mean, len(vectors.queries), len(pool.queries))


def share(mean: Tensor, num_rows: int, num_all: int | None = None) -> Tensor:
    """Scale a mean over this worker's rows so that the mean over workers is that over all rows.

    Args:
        mean: A scalar.
        num_rows: How many rows it is of.
        num_all: Rows of all workers; None asks them.
    """
    if num_all is None:
        num_all = sum(_counts(num_rows, mean.device))
    return mean * (num_rows * _num_workers() / num_all)


def gather_pool(vectors: Contrast) -> Pool:
    """Gather queries and positives of all workers, in the order of their ranks."""
    if _num_workers() == 1:
        return vectors.pool()
    ids = vectors.document_ids
    # Side by side, so that one exchange there and one back do for both.
    both, first_row = _gathered(torch.cat([vectors.queries, vectors.positives], 1))
    queries, positives = both.chunk(2, 1)
    return Pool(queries, positives, None if ids is None else _gathered(ids)[0], first_row)


def gather_rows(rows: Tensor) -> Tensor:
    """Gather the rows of all workers, in the order of their ranks, with gradient.

    Each row's gradient is the sum of what all workers' losses give it.

    Args:
        rows: (n, ...), n may differ between workers.
    """
    return rows if _num_workers() == 1 else _gathered(rows)[0]


def _gathered(rows: Tensor) -> tuple[Tensor, int]:
    """Gather rows, and tell where one's own start."""
    counts = _counts(len(rows), rows.device)
    # The sums of gradients would be rounded in a smaller type.
    full = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
    gathered: Tensor = _Gather.apply(full, counts)
    return gathered, sum(counts[: dist.get_rank()])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # Collectives take one size: padded to the longest, cut after.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: dist.get_rank()])
        return total[start : start + ctx.counts[dist.get_rank()]], None


def _counts(num_rows: int, device: torch.device) -> list[int]:
    """Learn every worker's number of rows."""
    if _num_workers() == 1:
        return [num_rows]
    own = torch.tensor([num_rows], device=device)
    counts = [torch.empty_like(own) for _ in range(_num_workers())]
    dist.all_gather(counts, own)
    return [int(count) for count in counts]


def _num_workers() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
