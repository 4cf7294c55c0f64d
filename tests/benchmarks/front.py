"""Requests a second with an engine that takes no time: all that stands around an engine.

Beside the whole path (edge, Serve's proxy, replica) it prints the path without the edge and the
replica alone, and for each of them the latency of many callers and of one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import grpc
from support import bare_server
from support.checkpoints import checkpoint
from support.fleets import Running, manifest, running
from support.load import EMBED, Answers, Load, Target, call_load, short_query
from support.report import arguments, begin, conclude, note, table

from embedfleet.messages import Role
from embedfleet.wire import embedding_pb2

WHOLE, NO_EDGE, REPLICA, BARE = "edge and Serve", "Serve, no edge", "replica alone", "bare grpc.aio"


@contextmanager
def bare_endpoint() -> Iterator[str]:
    """Run the bare server in a process of its own."""
    script = Path(bare_server.__file__)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def targets(fleet: Running, bare: str) -> dict[str, Target]:
    """Name every way to an answer, longest first."""
    application = (("application", fleet.application()),)
    return {
        WHOLE: Target(fleet.state.endpoint),
        NO_EDGE: Target(f"127.0.0.1:{fleet.state.ports.serve_grpc}", application),
        REPLICA: Target(fleet.replica_endpoint(), application),
        BARE: Target(bare),
    }


def answer_bytes(target: Target) -> int:
    """Call once; return the size of an answer after a look inside."""
    with grpc.insecure_channel(target.endpoint) as channel:
        answer = channel.unary_unary(EMBED)(short_query(), metadata=target.metadata)
    (embedding,) = embedding_pb2.EmbedResponse.FromString(answer).embeddings
    if len(embedding.values) != 4 * bare_server.DIMENSION:
        raise SystemExit(f"{target.endpoint} answers a vector of {len(embedding.values)} bytes.")
    return len(answer)


def main() -> None:
    given = arguments(__doc__, callers=64, channels=8, seconds=5.0, rounds=5)
    begin(
        "front",
        f"req/s of an echo engine, {given.callers} callers on {given.channels} channels, one "
        "short text in, 4 KB out",
        "a bare grpc.aio server with the same messages in its own process, same load generator",
    )
    many = Load(given.callers, given.channels, given.seconds)
    one = Load(1, 1, given.seconds / 2)
    found: dict[str, list[tuple[Answers, Answers]]] = {}
    text = manifest(Role.EMBEDDER, checkpoint(Role.EMBEDDER), backend="echo")
    with running(text) as fleet, bare_endpoint() as bare:
        ways = targets(fleet, bare)
        sizes = {name: answer_bytes(target) for name, target in ways.items()}
        for number in range(given.rounds):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                answers = [call_load(ways[name], short_query(), load) for load in (many, one)]
                found.setdefault(name, []).append((answers[0], answers[1]))
                note(f"round {number + 1} of {given.rounds}: {name} {answers[0].per_second:.0f}/s")
    rows = [
        (
            name,
            median(busy.per_second for busy, _ in rounds),
            median(
                busy.per_second / other.per_second
                for (busy, _), (other, _) in zip(rounds, found[BARE], strict=True)
            ),
            *(median(busy.percentile(share) for busy, _ in rounds) for share in (50, 99)),
            *(median(single.percentile(share) for _, single in rounds) for share in (50, 99)),
            str(sizes[name]),
        )
        for name, rounds in found.items()
    ]
    names = ("path", "req/s", "over bare", "p50 ms", "p99 ms", "1 caller p50 ms", "p99 ms", "bytes")
    table(names, rows)
    conclude("front", rows[0][2], "at least 0.30, aim 0.5")


if __name__ == "__main__":
    main()
