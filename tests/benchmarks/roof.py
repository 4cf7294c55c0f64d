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
from support.arithmetic import engine_flops, linear_parameters, linear_shapes, model_flops
from support.checkpoints import checkpoint
from support.machine import CORES
from support.report import (
    CELLS,
    Side,
    alternate,
    arguments,
    begin,
    by_core_time,
    conclude,
    note,
    paired,
    table,
)
from support.texts import Writer

from embedfleet.batching.packing import pack
from embedfleet.checkpoint.config import ModelConfig, read_config
from embedfleet.engine import load_embedder
from embedfleet.messages import Role

ENGINE, IN_FULL, BARE = "engine", "engine, last layer in full", "bare linears"


def bare_products(config: ModelConfig, tokens: int) -> Callable[[], None]:
    """Make the products of one step and nothing between them, each layer its own weights."""
    layers = [
        [torch.randn(out, into) * 0.02 for out, into in linear_shapes(config)]
        for _ in range(config.num_layers)
    ]
    inputs = {into: torch.randn(tokens, into) for _, into in linear_shapes(config)}

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
    products = 2.0 * batch.num_tokens * linear_parameters(config)
    done = engine_flops(config, given.documents, given.length)
    whole = model_flops(config, given.documents, given.length)
    counted = ((ENGINE, done, ours), (IN_FULL, whole, ours), (BARE, products, theirs))
    rows = [
        (name, flops / side.seconds / 1e9, batch.num_tokens / side.seconds, *side.cells())
        for name, flops, side in counted
    ]
    table(("side", "GFLOP/s", "tokens/s", *CELLS), rows)
    work = done / products
    core_ratio = by_core_time(theirs, ours) * work
    conclude("roof", paired(theirs, ours) * work, "at least 0.75, aim 0.85", core_ratio)


if __name__ == "__main__":
    main()
