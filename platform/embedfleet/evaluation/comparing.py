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
from embedfleet.evaluation.similarity import SPEARMAN, Pairs, resampled_spearman, spearman

__all__ = ["MEAN", "Compared", "Difference", "compare", "pairs", "sentence"]

MEAN: Final = "mean"
"""Stands for the mean over all datasets where a dataset is named."""

_POINTS: Final = 100

Values = npt.NDArray[np.float64]
Draws = dict[tuple[str, str], tuple[float, Values]]
"""By system and measure: what was measured, and that of every resample."""


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
    drawn = {
        dataset.name: _retrieval(results, dataset.name, (seed, at), num_resamples)
        for at, dataset in enumerate(results.datasets)
    }
    if len(drawn) > 1:
        drawn[MEAN] = _mean(list(drawn.values()))
    for at, texts in enumerate(results.pairs, len(results.datasets)):
        drawn[texts.name] = _similarity(results, texts, (seed, at), num_resamples)
    values = {
        (name, data, measure): interval(*draws[name, measure])
        for data, draws in drawn.items()
        for name, measure in draws
    }
    differences = [
        Difference(one, other, data, measure, _apart(draws[one, measure], draws[other, measure]))
        for data, draws in drawn.items()
        for one, other in pairs(results, baseline)
        for measure in (*MEASURES, SPEARMAN)
        if (one, measure) in draws and (other, measure) in draws
    ]
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


def _retrieval(results: Results, dataset: str, seed: tuple[int, ...], num_resamples: int) -> Draws:
    names = [name for name in results.systems if (dataset, name) in results.values]
    values = np.concatenate([results.values[dataset, name] for name in names], axis=1)
    columns = [(name, measure) for name in names for measure in MEASURES]
    resampled = resampled_means(values, seed, num_resamples)
    return {
        column: (float(mean), resampled[:, at])
        for at, (column, mean) in enumerate(zip(columns, values.mean(axis=0), strict=True))
    }


def _mean(parts: list[Draws]) -> Draws:
    """Average datasets: each was drawn by itself, so that its share in the mean does not vary."""
    return {
        column: (
            float(np.mean([draws[column][0] for draws in parts])),
            np.mean([draws[column][1] for draws in parts], axis=0),
        )
        for column in parts[0]
    }


def _similarity(results: Results, texts: Pairs, seed: tuple[int, ...], num_resamples: int) -> Draws:
    return {
        (name, SPEARMAN): (
            spearman(found, texts.scores),
            resampled_spearman(found, texts.scores, seed, num_resamples),
        )
        for (pairs_name, name), found in results.cosines.items()
        if pairs_name == texts.name
    }


def _apart(one: tuple[float, Values], other: tuple[float, Values]) -> Interval:
    return interval(one[0] - other[0], one[1] - other[1])
