"""The shapes of the embedded models, and their `config.json` as the reference library spells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.embedded.vocabulary import ADDED_TOKENS
from embedfleet.messages import Role

__all__ = ["NUM_ORDINARY_TOKENS", "SHAPES", "config_document"]

NUM_ORDINARY_TOKENS: Final = 10_240


def _shape(
    num_layers: int, num_heads: int, hidden_size: int, intermediate_size: int
) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_query_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=64,
        intermediate_size=intermediate_size,
        vocab_size=NUM_ORDINARY_TOKENS + len(ADDED_TOKENS),
        max_tokens=32_768,
        rms_norm_eps=1e-6,
        rope_theta=1_000_000.0,
        tied_lm_head=True,
    )


SHAPES: Final[Mapping[Role, ModelConfig]] = {
    Role.EMBEDDER: _shape(num_layers=2, num_heads=4, hidden_size=256, intermediate_size=512),
    Role.RERANKER: _shape(num_layers=4, num_heads=5, hidden_size=296, intermediate_size=336),
}


def config_document(role: Role) -> Mapping[str, object]:
    """Return a model's configuration."""
    shape = SHAPES[role]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_query_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_tokens,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied_lm_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "bfloat16",
    }
