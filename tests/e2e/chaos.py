"""Does one thing after the other to a fleet under traffic and prints what it cost, in Markdown.

Usage: python tests/e2e/chaos.py [WORD ...]    only faults whose names hold a word.

Calls come from the client without a pause; what it lost was lost after its own retries.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.chain import (
    FLEET,
    KEPT_IN_REDIS,
    NAMESPACE,
    RELEVANCE,
    alone,
    chain,
    ready,
    scaled,
    traffic,
)
from e2e.changes import CHANGES
from e2e.cluster import missing
from e2e.crowds import CROWDS
from e2e.faults import FAULTS, Fault, without_head
from e2e.traffic import Tally
from e2e.world import World
from operator_process import Kubectl

BEFORE_SECONDS = 4.0
STEADY_SECONDS = 12.0
LIMIT_SECONDS = 600.0
FLEETS: Sequence[tuple[dict[str, Any], Mapping[str, Fault]]] = (
    (FLEET, {**FAULTS, **CROWDS, "the head pod": without_head, **CHANGES}),
    (KEPT_IN_REDIS, {"the head pod, its state in Redis": without_head}),
)
"""What is done to which: the gravest last, so that it tells nothing about the others."""


@dataclass(frozen=True)
class Row:
    """What a fault cost.

    Attributes:
        whole_seconds: Until everything ran again as before; None if it never did.
    """

    name: str
    tally: Tally
    whole_seconds: float | None
    note: str

    def __str__(self) -> str:
        """Write a row of the table."""
        tally, again = self.tally, self.whole_seconds
        cells = (
            self.name, tally.sent, tally.answered, tally.retried, len(tally.failed), tally.wrong,
            f"{tally.longest_seconds:.1f} s", "never" if again is None else f"{again:.0f} s",
            self.note,
        )  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


COLUMNS = (
    "fault", "sent", "answered", "retried", "lost", "wrong", "longest call", "whole again after",
    "seen",
)  # fmt: skip
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def suffer(world: World, name: str, fault: Fault) -> Row:
    """Do one thing to the world under traffic, and wait until it is whole."""
    again: float | None = None
    with traffic(world.cluster, world.expected) as tally:
        time.sleep(BEFORE_SECONDS)
        began = time.monotonic()
        note = fault(world)
        since: float | None = None
        while time.monotonic() - began < LIMIT_SECONDS:
            if not world.whole():
                since = None
            else:
                since = since or time.monotonic()
                if time.monotonic() - since >= STEADY_SECONDS:
                    again = since - began
                    break
            time.sleep(0.5)
    return Row(name, tally, again, note(tally) if note else "")


def rows(fleet: dict[str, Any], faults: Mapping[str, Fault]) -> Iterator[Row]:
    """Bring a fleet up and do every fault to it."""
    expected = alone()
    with chain(fleet) as cluster:
        kubectl = Kubectl(cluster.plane, NAMESPACE)
        two = {"scaling": {"minReplicas": 2}}
        kubectl.apply({**RELEVANCE, "spec": {**RELEVANCE["spec"], **two}})
        ready(kubectl, cluster, "fleet/search", "embedder/docs", "reranker/relevance")
        scaled(kubectl, 2)
        world = World(cluster, kubectl, expected)
        for name, fault in faults.items():
            row = suffer(world, name, fault)
            yield row
            for message in dict.fromkeys(row.tally.failed):
                sys.stderr.write(f"{name}: {row.tally.failed.count(message)} x {message}\n")
            if row.whole_seconds is None:
                sys.stderr.write(f"{kubectl('get', 'pods,embedfleet')}{cluster.logs()}\n")
                return


def chosen(words: Sequence[str]) -> Iterator[tuple[dict[str, Any], Mapping[str, Fault]]]:
    """Give the fleets and what is done to each: everything, or what holds one of the words.

    Raises:
        ValueError: A word is in no name.
    """
    names = [name for _, faults in FLEETS for name in faults]
    if strange := [word for word in words if not any(word in name for name in names)]:
        raise ValueError(
            f"no fault's name holds {', '.join(map(repr, strange))}. There are: {'; '.join(names)}."
        )
    for fleet, faults in FLEETS:
        wanted = {n: f for n, f in faults.items() if not words or any(w in n for w in words)}
        if wanted:
            yield fleet, wanted


def main(words: Sequence[str]) -> int:
    try:
        wanted = list(chosen(words))
    except ValueError as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 2
    if reason := missing():
        sys.stdout.write(f"chaos: not here: {reason}\n")
        return 1
    sys.stdout.write(f"{HEAD}\n")
    found = []
    for fleet, faults in wanted:
        for row in rows(fleet, faults):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
            found.append(row)
    lost = sum(len(each.tally.failed) for each in found)
    wrong = sum(each.tally.wrong for each in found)
    sys.stdout.write(f"chaos: {len(found)} faults, lost {lost}, wrong {wrong}\n")
    return int(bool(lost or wrong) or any(each.whole_seconds is None for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
