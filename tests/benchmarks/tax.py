"""What gRPC, batching and processes cost in bulk: the fleet against the engine in one process."""

from __future__ import annotations

import numpy as np
from support.arithmetic import lognormal_lengths
from support.checkpoints import checkpoint
from support.fleets import manifest, running
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

from embedfleet.client import Client, ClientConfig
from embedfleet.engine import load_embedder
from embedfleet.messages import Role

MEDIAN_TOKENS, P99_TOKENS = 60, 1500
PARITY = 1e-4
OURS, ALONE = "embedfleet, gRPC", "engine alone"


def main() -> None:
    given = arguments(__doc__, texts=48, rounds=5)
    begin(
        "tax",
        f"tokens/s of {given.texts} documents, log-normal lengths, 0.6B shape, bulk",
        "load_embedder(...).embed of the same texts in this process, the fleet idle",
    )
    lengths = lognormal_lengths(given.texts, MEDIAN_TOKENS, P99_TOKENS)
    texts, tokens = Writer().texts(lengths), sum(lengths) + len(lengths)
    folder = checkpoint(Role.EMBEDDER)
    engine = load_embedder(folder)
    with running(manifest(Role.EMBEDDER, folder)) as fleet:
        config = ClientConfig(timeout_seconds=600)
        with Client(fleet.state.endpoint, config=config) as client:
            vectors = client.embed_documents("m", texts, priority="BULK").vectors
            difference = float(np.abs(vectors - engine.embed(texts, "DOCUMENT")).max())
            note(f"largest difference of a component: {difference:.1e}, allowed {PARITY:.0e}")
            if not difference < PARITY:
                raise SystemExit("The vectors differ: no speed counts.")
            ours = Side(lambda: client.embed_documents("m", texts, priority="BULK"), fleet.pids)
            alone = Side(lambda: engine.embed(texts, "DOCUMENT"))
            alternate({OURS: ours, ALONE: alone}, given.rounds)
    rows = [
        (name, tokens / side.seconds, *side.cells())
        for name, side in ((OURS, ours), (ALONE, alone))
    ]
    table(("side", "tokens/s", *CELLS), rows)
    conclude("tax", paired(alone, ours), "at least 0.95", by_core_time(alone, ours))


if __name__ == "__main__":
    main()
