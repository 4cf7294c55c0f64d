"""What was kept and why, in numbers: the same value as table rows and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from embedfleet.tuning.synthesis.costs import cost_of
from embedfleet.tuning.synthesis.filtering import Judged
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.settings import Prices, SynthesisSettings
from embedfleet.tuning.synthesis.steps import Rejection

__all__ = ["HISTOGRAM_EDGES", "Counts", "Group", "Report", "Spending", "report_of", "spending_of"]

HISTOGRAM_EDGES: Final = (-1.0, *(round(0.1 * step, 1) for step in range(11)))
"""Twelve edges, eleven bins: one for all below 0, then tenths; each holds its lower edge."""


@dataclass(frozen=True, slots=True)
class Group:
    """How the queries of one task in one language came out."""

    task: str
    language: str
    num_written: int
    num_kept: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What all runs into the folder used.

    Attributes:
        cost: None where no prices are set.
        num_estimated_answers: Answers whose tokens the endpoint did not count.
    """

    num_requests: int
    num_failed_requests: int
    num_repairs: int
    prompt_tokens: int
    completion_tokens: int
    num_estimated_answers: int
    cost: float | None
    currency: str


@dataclass(frozen=True, slots=True)
class Report:
    """A synthesis so far.

    Attributes:
        num_asked: Queries that there shall be; kept, rejected and waiting ones add up to it.
        num_waiting: Queries without all answers yet.
        skipped_passages: Lines of the input left out, by reason.
        rejected: Queries left out, by reason.
        histogram: Numbers of cosines between `HISTOGRAM_EDGES`, kept and rejected ones.
        mean_cosine: Of all compared; None where none was.
        stopped: Why the run ended before all was asked; empty if it did not.
    """

    num_passages: int
    skipped_passages: Mapping[str, int]
    num_asked: int
    num_kept: int
    num_waiting: int
    rejected: Mapping[str, int]
    groups: Sequence[Group]
    min_cosine: float
    histogram: Sequence[int]
    mean_cosine: float | None
    spending: Spending
    stopped: str

    def as_json(self) -> dict[str, Any]:
        """Give the report as JSON's own types."""
        return asdict(self) | {"histogram_edges": list(HISTOGRAM_EDGES)}


def spending_of(journal: Journal, prices: Prices | None) -> Spending:
    """Add up what the journal tells."""
    spent = journal.spent
    cost = None
    if prices is not None:
        cost = cost_of(prices, spent.prompt_tokens, spent.completion_tokens)
    return Spending(
        num_requests=spent.num_requests,
        num_failed_requests=spent.num_failures,
        num_repairs=sum(n for step, n in journal.steps.items() if step.endswith("-again")),
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        num_estimated_answers=spent.num_uncounted,
        cost=cost,
        currency=prices.currency if prices is not None else "",
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run was given and how far it came.

    Attributes:
        num_asked: Queries that there shall be.
        num_waiting: Queries without all answers yet.
    """

    num_passages: int
    skipped_passages: Mapping[str, int]
    num_asked: int
    num_waiting: int
    stopped: str = ""


def report_of(
    counts: Counts,
    kept: Sequence[Judged],
    rejected: Sequence[Rejection],
    settings: SynthesisSettings,
    spending: Spending,
) -> Report:
    """Count everything."""
    measured = [each.cosine for each in kept]
    measured += [each.cosine for each in rejected if each.cosine is not None]
    reasons = Counter(str(each.reason) for each in rejected)
    # Rounding can put a cosine a little outside of -1 to 1.
    inside = np.clip(np.array(measured, np.float64), -1, 1)
    return Report(
        num_passages=counts.num_passages,
        skipped_passages=dict(sorted(counts.skipped_passages.items())),
        num_asked=counts.num_asked,
        num_kept=len(kept),
        num_waiting=counts.num_waiting,
        rejected=dict(sorted(reasons.items())),
        groups=_groups(kept, rejected),
        min_cosine=settings.filter.min_cosine,
        histogram=[int(n) for n in np.histogram(inside, HISTOGRAM_EDGES)[0]],
        mean_cosine=math.fsum(measured) / len(measured) if measured else None,
        spending=spending,
        stopped=counts.stopped,
    )


def _groups(kept: Iterable[Judged], rejected: Iterable[Rejection]) -> list[Group]:
    good = Counter((str(each.draft.chosen.task), each.draft.language) for each in kept)
    written = good + Counter(
        (str(each.chosen.task), each.language)
        for each in rejected
        if each.chosen is not None and each.query
    )
    return [Group(*key, number, good[key]) for key, number in sorted(written.items())]
