"""Uses a fleet for a while and prints what each of its processes has grown by, in Markdown.

Usage: python tests/e2e/soak.py [MINUTES]    20 unless given, the first quarter of them to warm up.

Load is mixed: short calls without a pause, bulk calls behind them. Memory is compared by the
medians of the first and the last fifth of the time; less than 1 MiB is noise, as allocators take it
in pieces. Threads, files and sockets come and go with connections: they have grown where the least
of the last fifth is above the most of the first.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.chain import ENDPOINT, NAMESPACE, alone, chain, program, ready, scaled, traffic
from e2e.cluster import Cluster, missing
from e2e.load import Load
from e2e.traffic import Tally
from e2e.usage import Usage, usage
from operator_process import Kubectl

MINUTES = 20.0
WARM_UP = 0.25
SAMPLE_SECONDS = 5.0
BULK_CALLS_PER_SECOND = 0.5
MAX_GROWTH = 0.02
NOISE_BYTES = 1 << 20
COUNTS = ("threads", "files", "sockets")
COLUMNS = ("process", "MiB", "later", "growth", *COUNTS)


@dataclass(frozen=True)
class Course:
    """What one process used at the start and at the end."""

    name: str
    first: Sequence[Usage]
    last: Sequence[Usage]

    @property
    def growth(self) -> float:
        """Of its resident memory, as a share of it."""
        before, after = self._resident
        return (after - before) / before if after - before > NOISE_BYTES else 0.0

    @property
    def grown(self) -> list[str]:
        """What there is more of, but memory."""
        return [
            what
            for what in COUNTS
            if min(getattr(each, what) for each in self.last)
            > max(getattr(each, what) for each in self.first)
        ]

    @property
    def _resident(self) -> tuple[float, float]:
        before, after = (
            median(each.resident_bytes for each in part) for part in (self.first, self.last)
        )
        return before, after

    def __str__(self) -> str:
        """Write a row of the table."""
        before, after = (each / 2**20 for each in self._resident)
        counts = (
            f"{median(getattr(each, what) for each in self.first):.0f} to "
            f"{median(getattr(each, what) for each in self.last):.0f}"
            for what in COUNTS
        )
        cells = (self.name, f"{before:.1f}", f"{after:.1f}", f"{100 * self.growth:.1f} %", *counts)
        return f"| {' | '.join(cells)} |"


def courses(samples: Sequence[Mapping[tuple[int, str], Usage]]) -> Iterator[Course]:
    """Give the course of every process that was there all the time."""
    fifth = max(1, len(samples) // 5)
    for key in sorted(set.intersection(*(set(each) for each in samples)), key=lambda key: key[1]):
        course = [each[key] for each in samples]
        yield Course(key[1], course[:fifth], course[-fifth:])


def soaked(cluster: Cluster, seconds: float) -> tuple[list[Course], Tally, Load]:
    """Use a fleet for so long."""
    samples = []
    bulk_rate = str(BULK_CALLS_PER_SECOND)
    with (
        traffic(cluster, alone()) as tally,
        program(cluster, "load.py", ENDPOINT, bulk_rate) as printed,
    ):
        time.sleep(WARM_UP * seconds)
        end = time.monotonic() + (1 - WARM_UP) * seconds
        while time.monotonic() < end:
            samples.append(usage(cluster.node))
            time.sleep(SAMPLE_SECONDS)
    return list(courses(samples)), tally, Load(**json.loads(printed[0]))


def asked_minutes(arguments: Sequence[str]) -> float:
    """Read how long to soak.

    Raises:
        ValueError: It is no number, or too short to compare its start with its end.
    """
    if not arguments:
        return MINUTES
    try:
        minutes = float(arguments[0])
    except ValueError:
        minutes = 0.0
    if not 1 <= minutes < math.inf:
        raise ValueError(f"minutes is {arguments[0]!r}; give a number of at least 1, such as 20.")
    return minutes


def main(arguments: Sequence[str]) -> int:
    try:
        minutes = asked_minutes(arguments)
    except ValueError as error:
        sys.stderr.write(f"soak: {error}\n")
        return 2
    if reason := missing():
        sys.stdout.write(f"soak: not here: {reason}\n")
        return 1
    with chain() as cluster:
        kubectl = Kubectl(cluster.plane, NAMESPACE)
        ready(kubectl, cluster, "fleet/search", "embedder/docs", "reranker/relevance")
        scaled(kubectl, 2)
        found, tally, load = soaked(cluster, 60 * minutes)
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n")
    for each in sorted(found, key=lambda course: -course.growth):
        sys.stdout.write(f"{each}\n")
        for what in each.grown:
            sys.stderr.write(f"{each.name}: more {what}\n")
    lost, largest = len(tally.failed) + sum(load.other.values()), max(x.growth for x in found)
    sys.stdout.write(
        f"soak: {len(found)} processes, lost {lost}, wrong {tally.wrong}, "
        f"largest growth {100 * largest:.1f} %\n"
    )
    grown = largest > MAX_GROWTH or any(each.grown for each in found)
    return int(bool(lost or tally.wrong) or grown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
