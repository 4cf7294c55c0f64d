"""Calls a fleet without a pause and holds every answer against what the engines alone gave.

Usage: python traffic.py ENDPOINT EXPECTED    until its input ends; prints a `Tally` as JSON.

Calls embedder `docs` for documents and reranker `relevance`, one thread each. Retries are the
client's own: what fails here has failed for good.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedfleet.client import Client
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
        failed: Messages of those that gave no answer, retries included.
        longest_seconds: Of a call that was answered.
    """

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Count another's calls too."""
        self.sent += other.sent
        self.answered += other.answered
        self.wrong += other.wrong
        self.failed += other.failed
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)


def call_until(ended: threading.Event, call: Callable[[], bool], tally: Tally) -> None:
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
            tally.longest_seconds = max(tally.longest_seconds, time.monotonic() - began)
        ended.wait(PAUSE_SECONDS)


def main(endpoint: str, expected: Expected) -> dict[str, Any]:
    ended, tallies = threading.Event(), (Tally(), Tally())
    with Client(endpoint) as client:
        calls = (lambda: expected.embedded(client), lambda: expected.ranked(client))
        threads = [
            threading.Thread(target=call_until, args=(ended, call, tally))
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
    sys.stdout.write(json.dumps(main(sys.argv[1], Expected.read(Path(sys.argv[2])))))
