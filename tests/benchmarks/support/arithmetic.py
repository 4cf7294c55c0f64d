"""What is counted before anything is measured: lengths of texts, FLOP of a step, bytes of weights.

FLOP of a product are two for each element and each column; attention counts its causal half.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from embedfleet.checkpoint.config import ModelConfig


def lognormal_lengths(count: int, median: float, p99: float) -> list[int]:
    """Return the distribution's quantiles in the middle of `count` equal shares: no luck in it."""
    normal = NormalDist()
    sigma = math.log(p99 / median) / normal.inv_cdf(0.99)
    shares = ((i + 0.5) / count for i in range(count))
    return [max(2, round(median * math.exp(sigma * normal.inv_cdf(share)))) for share in shares]


def linear_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return (out, in) of a layer's products: QKV, output, gate and up, down."""
    query = config.num_query_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    hidden, wide = config.hidden_size, config.intermediate_size
    return [(query + 2 * kv, hidden), (hidden, query), (2 * wide, hidden), (hidden, wide)]


def linear_parameters(config: ModelConfig) -> int:
    """Count the weights of all layers' products."""
    return config.num_layers * sum(out * into for out, into in linear_shapes(config))


def model_flops(config: ModelConfig, documents: int, length: int) -> float:
    """Count every layer on every token."""
    query = config.num_query_heads * config.head_dim
    attention = 4.0 * query * config.num_layers * documents * length * (length + 1) / 2
    return 2.0 * documents * length * linear_parameters(config) + attention


def engine_flops(config: ModelConfig, documents: int, length: int) -> float:
    """Count what has to be computed: in the last layer keys and values of every token, but
    queries, attention, output and MLP of each document's last token only.
    """
    query = config.num_query_heads * config.head_dim
    kv = 2 * config.num_kv_heads * config.head_dim * config.hidden_size
    layer = linear_parameters(config) // config.num_layers
    whole_layer = model_flops(config, documents, length) / config.num_layers
    last = 2.0 * (documents * length * kv + documents * (layer - kv))
    last += 4.0 * query * documents * length
    return whole_layer * (config.num_layers - 1) + last


def weights_bytes(config: ModelConfig) -> int:
    """Count products in float32 and the table of embeddings in bfloat16, as both are held."""
    return 4 * linear_parameters(config) + 2 * config.vocab_size * config.hidden_size
