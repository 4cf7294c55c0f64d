"""Values with confidence, and which differences are stated: pairs of systems, resampled together.

Every interval of one dataset comes from the same draws, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.evaluation.bootstrap import NUM_RESAMPLES, Interval, interval, resampled_means
from embedfleet.evaluation.measures import MEASURES
from embedfleet.evaluation.results import Kind, Results

__all__ = ["MEAN", "Compared", "Difference", "compare", "pairs", "sentence"]

MEAN: Final = "mean"
"""Stands for the mean over all datasets where a dataset is named."""

_POINTS: Final = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one system is than another.

    Attributes:
        dataset: Its name, or MEAN.
        difference: In fractions of one; positive where `system` is the better one.
    """

    system: str
    against: str
    dataset: str
    measure: str
    difference: Interval


@dataclass(frozen=True, slots=True)
class Compared:
    """Every value with its bounds: by system, dataset (or MEAN) and measure; and differences."""

    values: dict[tuple[str, str, str], Interval]
    differences: tuple[Difference, ...]


def compare(
    results: Results, baseline: str, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Compared:
    """Put bounds to all that was measured.

    Args:
        results: At least one system.
        baseline: Name of the system that others are compared with.
        seed: Of the draws.
        num_resamples: Draws a dataset.
    """
    draws = {
        dataset.name: _draws(results, dataset.name, (seed, at), num_resamples)
        for at, dataset in enumerate(results.datasets)
    }
    if len(draws) > 1:
        # Each dataset was drawn by itself, so that its share in the mean does not vary.
        drawn = list(draws.values())
        means = np.mean([mean for mean, _ in drawn], axis=0)
        draws[MEAN] = (means, np.mean([resampled for _, resampled in drawn], axis=0))
    columns = {
        (name, measure): at * len(MEASURES) + place
        for at, name in enumerate(results.systems)
        for place, measure in enumerate(MEASURES)
    }
    values, differences = {}, []
    for dataset, (mean, resampled) in draws.items():
        for (name, measure), at in columns.items():
            values[name, dataset, measure] = interval(mean[at], resampled[:, at])
        for one, other in pairs(results, baseline):
            for measure in MEASURES:
                left, right = columns[one, measure], columns[other, measure]
                apart = interval(mean[left] - mean[right], resampled[:, left] - resampled[:, right])
                differences.append(Difference(one, other, dataset, measure, apart))
    return Compared(values, tuple(differences))


def pairs(results: Results, baseline: str) -> list[tuple[str, str]]:
    """Say which differences are stated, better-to-be first.

    Every model and every second stage against the baseline and against BM25; a second stage against
    its first; a model against the first model; a variant against its own model; a model against
    itself without instruction.
    """
    return list(dict.fromkeys(pair for pair in _pairs(results, baseline) if pair[0] != pair[1]))


def _pairs(results: Results, baseline: str) -> Iterator[tuple[str, str]]:
    full = [each for each in results.of_kind(Kind.EMBEDDER) if not each.variant_of]
    staged = list(results.of_kind(Kind.RERANKER))
    references = (baseline, *(each.name for each in results.of_kind(Kind.BM25)))
    for system in full:
        yield from ((system.name, reference) for reference in references)
    for system in staged:
        yield (system.name, system.first_stage)
        yield from ((system.name, reference) for reference in references)
    for system in full[1:]:
        yield (system.name, full[0].name)
    for system in results.systems.values():
        if system.variant_of and not system.instruction:
            yield (system.variant_of, system.name)
        elif system.variant_of:
            yield (system.name, system.variant_of)


def sentence(difference: Interval) -> str:
    """Say a difference in points, or that there is none to be seen."""
    low, high = (f"{_POINTS * bound:.1f}" for bound in (difference.low, difference.high))
    bounds = f"95 % {low} to {high}"
    if not difference.excludes_zero:
        return f"no difference shown ({bounds})"
    return f"{_POINTS * difference.value:+.1f} points ({bounds})"


def _draws(
    results: Results, dataset: str, seed: tuple[int, ...], num_resamples: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give means and resampled means; columns are systems, then measures."""
    values = np.concatenate([results.values[dataset, name] for name in results.systems], axis=1)
    return values.mean(axis=0), resampled_means(values, seed, num_resamples)
