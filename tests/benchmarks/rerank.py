"""One query against many documents through gRPC, against the reranker's published example."""

from __future__ import annotations

import numpy as np
from support.checkpoints import checkpoint
from support.fleets import manifest, running
from support.peers import TransformersReranker, faster_type
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

from embedfleet.client import Client, ClientConfig, Ranking
from embedfleet.messages import Role

BATCH_SIZES = (1, 2, 4, 8, 16)
SEARCHED = 16
PARITY = 1e-4
OURS, PEER = "embedfleet, gRPC", "transformers, model card"


def in_order(ranking: Ranking) -> np.ndarray:
    """Return scores in the order of the documents."""
    return np.array([each.score for each in sorted(ranking.results, key=lambda r: r.index)])


def main() -> None:
    given = arguments(__doc__, documents=100, tokens=128, rounds=2)
    begin(
        "rerank",
        f"1 query x {given.documents} documents of {given.tokens} tokens, 0.6B shape",
        "the model card's recipe in transformers, its best batch size",
    )
    writer, folder = Writer(), checkpoint(Role.RERANKER)
    query = writer.text(10)
    documents = [writer.text(given.tokens) for _ in range(given.documents)]
    some = documents[:SEARCHED]
    dtype = faster_type(lambda kind: TransformersReranker(folder, kind, query), some)
    peer = TransformersReranker(folder, dtype, query)
    peer.run(documents[:2], 1)
    # Documents are of one length, so a part tells which batch size is best for all.
    best = search(PEER, lambda size: peer.run(some, size), BATCH_SIZES, SEARCHED)
    with running(manifest(Role.RERANKER, folder)) as fleet:
        config = ClientConfig(timeout_seconds=600)
        with Client(fleet.state.endpoint, config=config) as client:
            answer = client.rerank("m", query, some)
            difference = float(np.abs(in_order(answer) - peer.run(some, best)).max())
            note(f"largest difference of a score: {difference:.1e}, allowed {PARITY:.0e}")
            if not difference < PARITY:
                raise SystemExit("The scores differ: no speed counts.")
            ours = Side(lambda: client.rerank("m", query, documents), fleet.pids)
            theirs = Side(lambda: peer.run(documents, best))
            alternate({OURS: ours, PEER: theirs}, given.rounds)
    rows = [
        (OURS, given.documents / ours.seconds, "float32", "-", *ours.cells()),
        (PEER, given.documents / theirs.seconds, str(dtype), str(best), *theirs.cells()),
    ]
    table(("side", "pairs/s", "type", "batch size", *CELLS), rows)
    conclude("rerank", paired(theirs, ours), "at least 1.8, aim 2.2", by_core_time(theirs, ours))


if __name__ == "__main__":
    main()
