"""How much of the machine's matrix speed the engine keeps: its FLOP/s over bare products' FLOP/s.

Counted is what the engine really computes: in the last layer keys and values of every token, but
queries, output and MLP of pooled tokens only. Attention counts its causal half. The figure that
credits the last layer in full, as if nothing were left out, is in the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from support.checkpoints import checkpoint
from support.machine import CORES
from support.report import Side, alternate, arguments, begin, conclude, note, paired, table
from support.texts import Writer

from embedfleet.batching.packing import pack
from embedfleet.checkpoint.config import ModelConfig, read_config
from embedfleet.engine import load_embedder
from embedfleet.messages import Role

ENGINE, BARE = "engine", "bare linears"


def shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return (out, in) of a layer's fused products."""
    query = config.num_query_heads * config.head_dim
    kv = config.num_kv_heads * config.head_dim
    hidden, wide = config.hidden_size, config.intermediate_size
    return [(query + 2 * kv, hidden), (hidden, query), (2 * wide, hidden), (hidden, wide)]


def linear_flops(config: ModelConfig, tokens: int) -> float:
    """Count the products of every layer on every token."""
    return 2.0 * tokens * config.num_layers * sum(out * into for out, into in shapes(config))


def attention_flops(config: ModelConfig, documents: int, length: int, layers: int) -> float:
    """Count scores and sums of the causal half: 2 products of 2 FLOP an element."""
    query = config.num_query_heads * config.head_dim
    return 4.0 * query * layers * documents * length * (length + 1) / 2


def engine_flops(config: ModelConfig, documents: int, length: int) -> float:
    """Count what is computed when the last layer is finished for pooled tokens only."""
    tokens = documents * length
    kv = 2 * config.num_kv_heads * config.head_dim * config.hidden_size
    query = config.num_query_heads * config.head_dim
    layer = sum(out * into for out, into in shapes(config))
    body = linear_flops(config, tokens) * (config.num_layers - 1) / config.num_layers
    last = 2.0 * (tokens * kv + documents * (layer - kv)) + 4.0 * query * documents * length
    return body + last + attention_flops(config, documents, length, config.num_layers - 1)


def bare_products(config: ModelConfig, tokens: int) -> Callable[[], None]:
    """Make the products of one step and nothing between them, each layer its own weights."""
    layers = [
        [torch.randn(out, into) * 0.02 for out, into in shapes(config)]
        for _ in range(config.num_layers)
    ]
    inputs = {into: torch.randn(tokens, into) for _, into in shapes(config)}

    @torch.inference_mode()
    def run() -> None:
        for weights in layers:
            for weight in weights:
                F.linear(inputs[weight.shape[1]], weight)

    return run


def main() -> None:
    given = arguments(__doc__, documents=2, length=512, rounds=7)
    begin(
        "roof",
        f"FLOP/s of the engine, steps of {given.documents} documents of {given.length} tokens, "
        "0.6B shape",
        "torch's linear of the same shapes, type and tokens a step",
    )
    torch.set_num_threads(CORES)
    folder = checkpoint(Role.EMBEDDER)
    config, engine, writer = read_config(folder), load_embedder(folder).engine, Writer()
    ids = [writer.tokenizer.encode(writer.text(given.length)) for _ in range(given.documents)]
    batch = pack([np.asarray(each) for each in ids])
    bare = bare_products(config, batch.num_tokens)
    engine.embed(batch)
    bare()
    note(f"engine: {engine.info.dtype}, {engine.info.kernels}")
    ours, theirs = Side(lambda: engine.embed(batch)), Side(bare)
    alternate({ENGINE: ours, BARE: theirs}, given.rounds)
    products = linear_flops(config, batch.num_tokens)
    done = engine_flops(config, given.documents, given.length)
    whole = products + attention_flops(config, given.documents, given.length, config.num_layers)
    rows = [
        (name, flops / 1e9, flops / side.seconds / 1e9, batch.num_tokens / side.seconds,
         side.spread, side.others)
        for name, flops, side in (
            (ENGINE, done, ours),
            ("engine, last layer in full", whole, ours),
            (BARE, products, theirs),
        )
    ]  # fmt: skip
    table(("side", "GFLOP", "GFLOP/s", "tokens/s", "seconds", "others' cores"), rows)
    conclude("roof", paired(theirs, ours) * done / products, "at least 0.75, aim 0.85")


if __name__ == "__main__":
    main()
