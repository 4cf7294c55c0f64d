"""Calls a fleet without a pause and holds every answer against what the engines alone gave.

Usage: python traffic.py ENDPOINT EXPECTED [TIMEOUT_SECONDS]    until its input ends

Calls embedder `docs` for documents and reranker `relevance`, one thread each, and prints a `Tally`
as JSON. Retries are the client's own: what fails here has failed for good.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedfleet.client import Client, ClientConfig
from embedfleet.errors import EmbedfleetError

__all__ = ["Expected", "Tally"]

TOLERANCE = 1e-4
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Expected:
    """Inputs, and what the engines alone make of them."""

    texts: list[str]
    vectors: list[list[float]]
    query: str
    scores: list[float]

    @classmethod
    def read(cls, path: Path) -> Expected:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Keep it for another process."""
        path.write_text(json.dumps(asdict(self)))

    def embedded(self, client: Client) -> bool:
        """Embed, and say whether the vectors are right."""
        vectors = client.embed_documents("docs", self.texts).vectors
        return bool(np.allclose(vectors, self.vectors, atol=TOLERANCE))

    def ranked(self, client: Client) -> bool:
        """Rank, and say whether the scores are right."""
        found = client.rerank("relevance", self.query, self.texts).results
        scores = [each.score for each in sorted(found, key=lambda each: each.index)]
        return bool(np.allclose(scores, self.scores, atol=TOLERANCE))


@dataclass
class Tally:
    """What became of calls.

    Attributes:
        retried: Those that were tried more than once, however they ended.
        failed: Messages of those that gave no answer, retries included.
        took: When each call began, on the monotonic clock of this machine, and its seconds.
    """

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    retried: int = 0
    failed: list[str] = field(default_factory=list)
    took: list[tuple[float, float]] = field(default_factory=list)

    @property
    def longest_seconds(self) -> float:
        """Of any call."""
        return max((seconds for _, seconds in self.took), default=0.0)

    def between(self, start: float, end: float) -> list[float]:
        """Seconds of the calls that began between two times."""
        return [seconds for began, seconds in self.took if start <= began < end]

    def add(self, other: Tally) -> None:
        """Count another's calls too."""
        self.sent += other.sent
        self.answered += other.answered
        self.wrong += other.wrong
        self.retried += other.retried
        self.failed += other.failed
        self.took += other.took


class Retries(logging.Handler):
    """Notes which threads the client made attempts again in."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[int | None] = set()
        log = logging.getLogger("embedfleet.client")
        log.setLevel(logging.INFO)
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._threads.add(record.thread)

    def take(self) -> bool:
        """Say whether this thread's last call was tried again, and forget it."""
        found = threading.get_ident() in self._threads
        self._threads.discard(threading.get_ident())
        return found


def call_until(
    ended: threading.Event, call: Callable[[], bool], tally: Tally, retries: Retries
) -> None:
    """Make one call after the other."""
    while not ended.is_set():
        began = time.monotonic()
        tally.sent += 1
        try:
            right = call()
        except EmbedfleetError as error:
            tally.failed.append(f"{type(error).__name__}: {error.message}")
        else:
            tally.answered += 1
            tally.wrong += not right
        tally.retried += retries.take()
        tally.took.append((began, time.monotonic() - began))
        ended.wait(PAUSE_SECONDS)


def main(endpoint: str, expected: Expected, config: ClientConfig) -> dict[str, Any]:
    ended, tallies, retries = threading.Event(), (Tally(), Tally()), Retries()
    with Client(endpoint, config=config) as client:
        calls = (lambda: expected.embedded(client), lambda: expected.ranked(client))
        threads = [
            threading.Thread(target=call_until, args=(ended, call, tally, retries))
            for call, tally in zip(calls, tallies, strict=True)
        ]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        ended.set()
        for thread in threads:
            thread.join()
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return asdict(total)


if __name__ == "__main__":
    config = ClientConfig(timeout_seconds=float(sys.argv[3])) if sys.argv[3:] else ClientConfig()
    sys.stdout.write(json.dumps(main(sys.argv[1], Expected.read(Path(sys.argv[2])), config)))
