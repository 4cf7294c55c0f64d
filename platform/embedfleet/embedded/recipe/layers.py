"""Weights of Qwen3's layers that compute a bag of words, to go on training from.

All layers but the last change nothing yet: what they write is zero, what they read is random, so
they learn from the first step on. In the last one the final token attends to every token by its
importance and takes over its content. Positions do not matter: attention reads the two slowest
components of a head, which rotary positions turn by less than a thousandth over a text.

    row of a token: [content (254) | importance | 1]
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.checkpoint.layout import EMBEDDING, expected_tensors
from embedfleet.embedded.recipe.bag import IMPORTANCE_GAIN, Bag
from embedfleet.messages import Role

__all__ = ["NUM_RESERVED", "TAKEN_SCALE", "UNIMPORTANT", "bag_weights"]

NUM_RESERVED: Final = 2
"""Components of a token's row that are not content."""

_OWN_SCALE: Final = 0.1
_NOISE: Final = 0.02

TAKEN_SCALE: Final = 8.0
"""Of contents that attention adds to a state, beside which its own row is nothing."""

UNIMPORTANT: Final = -3.0
"""Importance of a token that says nothing."""


def bag_weights(bag: Bag, config: ModelConfig, role: Role, final_id: int) -> dict[str, Tensor]:
    """Write a bag as a model.

    Args:
        bag: Of the model's vocabulary; content is `NUM_RESERVED` narrower than the model.
        config: Shape; as many heads for keys as for queries.
        role: Whose tensors they are.
        final_id: The token that pools a text, whose row says nothing but that.

    Returns:
        float32 tensors by canonical name.
    """
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in expected_tensors(config, role).items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = torch.zeros(shape)
        else:
            weights[name] = torch.randn(shape, generator=generator) * shape[1] ** -0.5
    weights[EMBEDDING] = _rows(bag, final_id)
    _pool(weights, f"layers.{config.num_layers - 1}.self_attn.", config, generator)
    return weights


def _rows(bag: Bag, final_id: int) -> Tensor:
    """Return the embedding table: (vocab, width)."""
    ones = torch.ones(len(bag.content), 1)
    table = torch.cat([bag.content, bag.importance[:, None], ones], dim=1)
    table[final_id] = 0.0
    table[final_id, -2:] = torch.tensor([UNIMPORTANT, 1.0]) * _OWN_SCALE
    return table


def _pool(
    weights: dict[str, Tensor], layer: str, config: ModelConfig, generator: torch.Generator
) -> None:
    """Let a layer's attention take the mean of contents, weighted by importance."""
    hidden, heads, width = config.hidden_size, config.num_query_heads, config.head_dim
    slow, slowest = width // 2 - 1, width - 1  # one pair of rotary positions, the slowest
    query = _NOISE * hidden**-0.5 * torch.randn(heads, width, hidden, generator=generator)
    key = query.clone()
    query[:, slow, -1] = 1.0
    key[:, slow, -2] = 1.0
    key[:, slowest, -1] = 1.0
    content = torch.eye(hidden)
    content[-NUM_RESERVED:] = 0.0
    weights[f"{layer}q_proj.weight"] = query.reshape(-1, hidden)
    weights[f"{layer}k_proj.weight"] = key.reshape(-1, hidden)
    weights[f"{layer}v_proj.weight"] = content
    weights[f"{layer}o_proj.weight"] = TAKEN_SCALE * torch.eye(hidden)
    # Norms make a lone component sqrt(width) long; scores are divided by sqrt(width) once.
    weights[f"{layer}q_norm.weight"] = torch.full((width,), IMPORTANCE_GAIN / math.sqrt(width))
