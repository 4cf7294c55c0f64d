"""How long an interactive query takes while a bulk job fills the fleet, over what it takes idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

import numpy as np
from support.checkpoints import checkpoint
from support.fleets import manifest, running
from support.load import TEXT
from support.report import arguments, begin, conclude, note, table
from support.texts import Writer

from embedfleet.client import Client, ClientConfig
from embedfleet.errors import Cancelled
from embedfleet.messages import Role

BULK_TOKENS = 512
BULK_ITEMS = 16
IN_FLIGHT = 4


class Bulk:
    """A job that always has more work waiting than the fleet can do."""

    def __init__(self, endpoint: str) -> None:
        self.num_tokens = 0
        self._endpoint = endpoint
        self._texts = Writer(1).texts([BULK_TOKENS - 1] * BULK_ITEMS)
        self._stopped = threading.Event()

    @contextmanager
    def saturating(self) -> Iterator[None]:
        """Keep the fleet full until the block ends."""
        self._stopped.clear()
        config = ClientConfig(timeout_seconds=600)
        with Client(self._endpoint, config=config) as client:
            threads = [
                threading.Thread(target=self._feed, args=(client,)) for _ in range(IN_FLIGHT)
            ]
            for thread in threads:
                thread.start()
            sleep(3)
            yield
            self._stopped.set()
        for thread in threads:
            thread.join()

    def _feed(self, client: Client) -> None:
        while not self._stopped.is_set():
            try:
                client.embed_documents("m", self._texts, priority="BULK")
            except Cancelled:
                return
            self.num_tokens += BULK_TOKENS * BULK_ITEMS


def queries(client: Client, count: int) -> np.ndarray:
    """Ask one query after the other; milliseconds of each."""
    milliseconds = np.empty(count)
    for number in range(count):
        started = perf_counter()
        client.embed_queries("m", [f"{TEXT} {number}"])
        milliseconds[number] = (perf_counter() - started) * 1e3
    return milliseconds


def main() -> None:
    given = arguments(__doc__, queries=200, rounds=2)
    begin(
        "interference",
        f"p99 of a short query, one at a time, while {IN_FLIGHT} bulk requests of {BULK_ITEMS} "
        f"documents of {BULK_TOKENS} tokens are always in flight, 0.6B shape",
        "p99 of the same queries on the idle fleet",
    )
    idle, busy, seconds = [], [], 0.0
    with running(manifest(Role.EMBEDDER, checkpoint(Role.EMBEDDER))) as fleet:
        bulk = Bulk(fleet.state.endpoint)
        with Client(fleet.state.endpoint) as client:
            queries(client, 5)
            for number in range(given.rounds):
                idle.append(queries(client, given.queries // given.rounds))
                with bulk.saturating():
                    started = perf_counter()
                    busy.append(queries(client, given.queries // given.rounds))
                    seconds += perf_counter() - started
                # What the job left behind must not count as idle.
                queries(client, 5)
                note(
                    f"round {number + 1} of {given.rounds}: p99 idle "
                    f"{np.percentile(idle[-1], 99):.0f} ms, busy {np.percentile(busy[-1], 99):.0f}"
                )
    rows = [
        (name, *(float(np.percentile(np.concatenate(parts), share)) for share in (50, 90, 99, 100)))
        for name, parts in (("idle", idle), ("beside bulk", busy))
    ]
    table(("short queries", "p50 ms", "p90 ms", "p99 ms", "max ms"), rows)
    note(f"bulk meanwhile: {bulk.num_tokens / seconds:.0f} tokens/s in whole requests")
    conclude("interference", rows[1][3] / rows[0][3], "at most 3")


if __name__ == "__main__":
    main()
