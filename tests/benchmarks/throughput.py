"""Valid tokens a second on texts of mixed lengths, through gRPC, against sentence-transformers.

Valid tokens are those of the texts and the one that closes each; padding does not count.
"""

from __future__ import annotations

import numpy as np
from support.arithmetic import lognormal_lengths
from support.checkpoints import checkpoint
from support.fleets import manifest, running
from support.peers import SentenceTransformersPeer, faster_type
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
    search,
    table,
)
from support.texts import Writer

from embedfleet.client import Client, ClientConfig
from embedfleet.messages import Role

MEDIAN_TOKENS, P99_TOKENS = 60, 1500
BATCH_SIZES = (1, 2, 4, 8, 16)
PARITY = 1e-4
OURS, PEER = "embedfleet, gRPC", "sentence-transformers"


def main() -> None:
    given = arguments(__doc__, texts=64, rounds=3)
    begin(
        "throughput",
        f"tokens/s of {given.texts} documents, log-normal lengths, median {MEDIAN_TOKENS}, "
        f"p99 {P99_TOKENS}, 0.6B shape",
        "sentence-transformers on the same checkpoint, sorted by length, its best batch size",
    )
    lengths = lognormal_lengths(given.texts, MEDIAN_TOKENS, P99_TOKENS)
    texts, tokens = Writer().texts(lengths), sum(lengths) + len(lengths)
    folder = checkpoint(Role.EMBEDDER)
    dtype = faster_type(lambda kind: SentenceTransformersPeer(folder, kind), texts)
    peer = SentenceTransformersPeer(folder, dtype)
    peer.run(texts[:4], 1)
    best = search(PEER, lambda size: peer.run(texts, size), BATCH_SIZES, tokens)
    with running(manifest(Role.EMBEDDER, folder)) as fleet:
        config = ClientConfig(timeout_seconds=600)
        with Client(fleet.state.endpoint, config=config) as client:
            vectors = client.embed_documents("m", texts, priority="BULK").vectors
            difference = float(np.abs(vectors - peer.run(texts, best)).max())
            note(f"largest difference of a component: {difference:.1e}, allowed {PARITY:.0e}")
            if not difference < PARITY:
                raise SystemExit("The vectors differ: no speed counts.")
            ours = Side(lambda: client.embed_documents("m", texts, priority="BULK"), fleet.pids)
            theirs = Side(lambda: peer.run(texts, best))
            alternate({OURS: ours, PEER: theirs}, given.rounds)
    rows = [
        (OURS, tokens / ours.seconds, "float32", "-", *ours.cells()),
        (
            PEER,
            tokens / theirs.seconds,
            str(dtype),
            str(best),
            *theirs.cells(),
        ),
    ]
    table(("side", "tokens/s", "type", "batch size", *CELLS), rows)
    conclude(
        "throughput", paired(theirs, ours), "at least 1.15, aim 1.3", by_core_time(theirs, ours)
    )


if __name__ == "__main__":
    main()
