"""How every measure is run and told: alternating rounds, medians, a table, the ratio last."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table
from support.machine import Usage, Watch, describe


@dataclass
class Side:
    """One side of a comparison.

    Attributes:
        run: Does the work once.
        pids: Processes that do it, beside this one.
    """

    run: Callable[[], object]
    pids: Sequence[int] = ()
    usages: list[Usage] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median time of a round."""
        return median(usage.seconds for usage in self.usages)

    @property
    def core_seconds(self) -> float:
        """Median time that cores worked on a round: what a busy machine disturbs least."""
        return median(usage.seconds * usage.own_cores for usage in self.usages)

    def cells(self) -> tuple[str, float, str]:
        """Return a table's cells for `CELLS`."""
        times = [usage.seconds for usage in self.usages]
        others = median(usage.other_cores for usage in self.usages)
        return (f"{min(times):.2f}-{max(times):.2f}", self.core_seconds, f"{others:.2f}")


CELLS = ("seconds", "core s", "others' cores")
"""Fastest and slowest round, time of cores, cores that all else on the machine kept busy."""


def alternate(sides: Mapping[str, Side], rounds: int) -> None:
    """Measure every side once a round; the order turns each time, so that drift cancels."""
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            side = sides[name]
            with Watch(side.pids).measure() as usage:
                side.run()
            side.usages.append(usage)
            note(
                f"round {number + 1} of {rounds}: {name} {usage.seconds:.2f} s, own cores "
                f"{usage.own_cores:.2f}, others {usage.other_cores:.2f}"
            )


def paired(left: Side, right: Side) -> float:
    """Median over rounds of left's time over right's: neighbours in time share their conditions."""
    pairs = zip(left.usages, right.usages, strict=True)
    return median(one.seconds / other.seconds for one, other in pairs)


def by_core_time(left: Side, right: Side) -> float:
    """Return the ratio that does not count waiting for cores that others used."""
    return left.core_seconds / right.core_seconds


def note(line: str) -> None:
    """Print progress."""
    print(f"  {line}", flush=True)


def begin(name: str, measure: str, peer: str) -> None:
    """Print what is measured, against what, where."""
    print(f"{name}: {measure}\npeer: {peer}\n{describe()}", flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their names, numbers aligned."""
    shown = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, str) else f"{cell:,.3g}" for cell in row))
    print()
    Console(width=140, highlight=False).print(shown)
    print()


def conclude(name: str, ratio: float, reach: str, core_ratio: float | None = None) -> None:
    """Print what was hoped for and, as the last line, what was found."""
    if core_ratio is not None:
        note(f"ratio by time of cores instead of wall time: {core_ratio:.3f}")
    print(f"{describe()}\nreach: {reach}\n{name}: ratio {ratio:.3f}", flush=True)


def arguments(about: str | None, **defaults: int | float) -> argparse.Namespace:
    """Read `--name VALUE` options; each default gives the type."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=" ")
    return parser.parse_args()


def search(name: str, run: Callable[[int], object], sizes: Sequence[int], work: float) -> int:
    """Find the batch size of the highest rate, smaller ones first.

    Args:
        name: Of who is measured.
        run: Does all of the work with one batch size.
        sizes: Ascending; the search ends when two in a row were slower than the best.
        work: What the rate counts, such as tokens.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        with Watch().measure() as usage:
            run(size)
        rates[size] = work / usage.seconds
        note(f"{name}, batch size {size}: {rates[size]:.1f}/s, others {usage.other_cores:.2f}")
        if len(rates) > 2 and max(list(rates.values())[-2:]) < max(rates.values()):
            break
    return max(rates, key=lambda size: rates[size])
