"""Which tensors a Qwen3 checkpoint holds, by name and shape (arXiv 2505.09388, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.messages import Role

__all__ = ["EMBEDDING", "LM_HEAD", "canonical_name", "expected_tensors", "needs_lm_head"]

EMBEDDING: Final = "embed_tokens.weight"
LM_HEAD: Final = "lm_head.weight"


def canonical_name(name: str) -> str:
    """Return a tensor's name without the prefix that only whole language models have."""
    return name.removeprefix("model.")


def needs_lm_head(config: ModelConfig, role: Role) -> bool:
    """Whether scores come from a head of its own: an embedder has none, a tied one is shared."""
    return role is Role.RERANKER and not config.tied_lm_head


def expected_tensors(config: ModelConfig, role: Role) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor that is needed, by canonical name."""
    hidden, wide = config.hidden_size, config.intermediate_size
    query, kv = config.num_query_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "self_attn.q_norm.weight": (config.head_dim,),
        "self_attn.k_norm.weight": (config.head_dim,),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (wide, hidden),
        "mlp.up_proj.weight": (wide, hidden),
        "mlp.down_proj.weight": (hidden, wide),
    }
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for i in range(config.num_layers):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["norm.weight"] = (hidden,)
    if needs_lm_head(config, role):
        shapes[LM_HEAD] = (config.vocab_size, hidden)
    return shapes
