"""The shape of a Qwen3 model, read from a checkpoint's `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelConfig"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the forward pass needs to know.

    Attributes:
        max_tokens: `max_position_embeddings`: longest sequence, prompt included.
        tied_lm_head: The output head is the embedding table (`tie_word_embeddings`).
    """

    num_layers: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_tokens: int
    rms_norm_eps: float
    rope_theta: float
    tied_lm_head: bool
