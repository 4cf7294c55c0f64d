"""What training makes small: the contrastive loss of embedders, the yes/no loss of rerankers.

Source of both formulas: arXiv 2506.05176, section 3. Everything is computed in float32, or float64
where that goes in, autocast or not. A loss of NaN or infinite numbers is itself not finite: who
steps an optimizer looks at the loss first. Knows neither texts nor workers.

Shape legend: N rows of the loss, K hard negatives of a row, P rows of the pool, D components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.contrast import Contrast, Pool, document_ids

__all__ = [
    "Contrast",
    "ContrastiveSettings",
    "Pool",
    "contrastive_loss",
    "document_ids",
    "matryoshka_loss",
    "reranking_loss",
]

_BLOCK_SIMILARITIES: Final = 1 << 22
"""In-batch similarities of one term held at once: 16 MiB in float32, three terms, some copies."""


@dataclass(frozen=True, slots=True)
class ContrastiveSettings:
    """Constants of the contrastive loss.

    Attributes:
        temperature: Cosines are divided by it.
        margin: What is closer than the positive by more counts as a false negative.
    """

    temperature: float
    margin: float = 0.1


def contrastive_loss(
    vectors: Contrast, settings: ContrastiveSettings, pool: Pool | None = None
) -> Tensor:
    """Take the mean over rows i of -log(e^(s(q_i,d_i+)/tau) / Z_i), with s the cosine.

    Z_i sums e^(s/tau) of the positive and of what the mask leaves of four more terms: s(q_i,d_ik-)
    of its own hard negatives, and over the other examples j of the pool s(q_i,q_j), s(d_i+,d_j+)
    and s(q_i,d_j+). The mask is zero where the term's own s is above s(q_i,d_i+) + margin, or
    where the document of j, or the hard negative, is d_i+ itself.

    Args:
        vectors: The rows; at least one.
        settings: Temperature and margin.
        pool: None means that the rows are the whole batch.

    Returns:
        A scalar in float32, or float64 if the vectors are.
    """
    pool = pool or vectors.pool()
    return _mean_over_rows(vectors, settings, pool, _full_type(vectors.queries))


def matryoshka_loss(
    vectors: Contrast,
    settings: ContrastiveSettings,
    dimensions: Mapping[int, float],
    pool: Pool | None = None,
) -> Tensor:
    """Take the weighted mean of the contrastive loss over several leading parts of the vectors.

    Args:
        vectors: As for the contrastive loss; the slice comes before unit length.
        settings: Temperature and margin.
        dimensions: Weight of the loss by number of leading components.
        pool: None means that the rows are the whole batch.

    Raises:
        InvalidRequest: A dimension is not one of the vectors', or no weight is above zero.
    """
    width = vectors.queries.shape[-1]
    for dimension, weight in dimensions.items():
        if not 1 <= dimension <= width or weight < 0:
            raise InvalidRequest(
                f"dimension {dimension} has weight {weight}; vectors have 1 to {width} components "
                "and weights are not negative. Change loss.matryoshka.",
                field="dimensions",
            )
    total = sum(dimensions.values())
    if not total > 0:
        raise InvalidRequest(
            "dimensions have no weight above zero. Give one a weight.", field="dimensions"
        )
    pool = pool or vectors.pool()
    parts = [
        contrastive_loss(vectors.cut(dimension), settings, pool.cut(dimension)) * (weight / total)
        for dimension, weight in dimensions.items()
    ]
    return torch.stack(parts).sum()


def reranking_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean of -log p(label) with p the softmax over the two answers.

    Args:
        logits: (M, 2) of no and yes in this order, or (M,) log-odds yes - no.
        labels: (M,), true or 1 for yes.

    Returns:
        A scalar in float32, or float64 if the logits are.
    """
    full = logits.to(_full_type(logits))
    log_odds = full[:, 1] - full[:, 0] if full.dim() == 2 else full
    return -F.logsigmoid(torch.where(labels.bool(), log_odds, -log_odds)).mean()


def _mean_over_rows(
    vectors: Contrast, settings: ContrastiveSettings, pool: Pool, dtype: torch.dtype
) -> Tensor:
    # Cosines of a product in bfloat16 would be off by more than the temperature forgives.
    with torch.autocast(vectors.queries.device.type, enabled=False):
        unit, others = vectors.unit(dtype), pool.unit(dtype)

        def losses(start: int, stop: int) -> Tensor:
            first_row = pool.first_row + start
            return _row_losses(
                unit.rows(start, stop), settings, replace(others, first_row=first_row)
            )

        return _in_blocks(losses, len(unit.queries), len(others.queries)).mean()


def _in_blocks(losses: Callable[[int, int], Tensor], num_rows: int, num_others: int) -> Tensor:
    """Compute rows some at a time, and again for their gradients: N x P never lies there whole."""
    step = max(1, _BLOCK_SIMILARITIES // num_others)
    if step >= num_rows:
        return losses(0, num_rows)
    parts = [
        checkpoint(
            losses,
            start,
            min(start + step, num_rows),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, num_rows, step)
    ]
    return torch.cat(parts)


def _row_losses(unit: Contrast, settings: ContrastiveSettings, pool: Pool) -> Tensor:
    """Compute log Z_i - s(q_i,d_i+)/tau of rows of unit length: (N,)."""
    own = (unit.queries * unit.positives).sum(-1, keepdim=True)  # (N, 1)
    highest = own.detach() + settings.margin
    places = torch.arange(len(own), device=own.device) + pool.first_row
    left_out = places[:, None] == torch.arange(len(pool.queries), device=own.device)
    if unit.document_ids is not None and pool.document_ids is not None:
        left_out |= unit.document_ids[:, None] == pool.document_ids
    terms = [own]
    if unit.negatives is not None:
        hard = torch.einsum("nd,nkd->nk", unit.queries, unit.negatives)
        terms.append(_masked(hard, highest, unit.absent()))
    for anchors, others in (
        (unit.queries, pool.queries),
        (unit.positives, pool.positives),
        (unit.queries, pool.positives),
    ):
        terms.append(_masked(anchors @ others.T, highest, left_out))
    # The positive is never masked, so that the sum is never empty.
    return torch.logsumexp(torch.cat(terms, -1) / settings.temperature, -1) - (
        own.squeeze(-1) / settings.temperature
    )


def _masked(similarities: Tensor, highest: Tensor, left_out: Tensor | None) -> Tensor:
    # NaN is not above the bound: it stays, and the loss shows it.
    false_negative = similarities.detach() > highest
    masked = false_negative if left_out is None else false_negative | left_out
    return similarities.masked_fill(masked, -torch.inf)


def _full_type(given: Tensor) -> torch.dtype:
    return torch.float64 if given.dtype == torch.float64 else torch.float32
