"""What a synthesis shows: its cost before it starts, and what was kept and why at its end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from embedfleet.cli.output import print_table
from embedfleet.tuning.synthesis.costs import Estimate
from embedfleet.tuning.synthesis.report import HISTOGRAM_EDGES, Report, Spending
from embedfleet.tuning.synthesis.running import Synthesis

__all__ = ["estimate_lines", "print_report"]

# At most this many blocks for the fullest bin.
_BAR_WIDTH = 40


def estimate_lines(estimate: Estimate, synthesis: Synthesis) -> Iterator[str]:
    """Say what is still to be asked, what that costs, and what the numbers rest on."""
    settings = synthesis.settings
    yield (
        f"{len(synthesis.passages.used):,} passages; {estimate.num_questions:,} questions for "
        f"{estimate.num_queries:,} queries to ask, {estimate.num_answered:,} answered already"
    )
    if not estimate.num_questions:
        return
    counted = f"counted with {settings.tokenizer}" if settings.tokenizer else "at 4 bytes a token"
    yield (
        f"about {estimate.prompt_tokens:,} prompt tokens ({counted}) and "
        f"{estimate.completion_tokens:,} tokens of answers, without what has to be repeated"
    )
    if settings.prices is None:
        yield "the cost is unknown: set prices.promptPerMillion and prices.completionPerMillion"
    else:
        cost, most = estimate.cost(settings.prices), estimate.most_cost(settings.prices)
        currency = settings.prices.currency
        yield (
            f"about {cost:,.4f} {currency}; at most {most:,.4f} {currency} if every answer had "
            f"{settings.endpoint.max_tokens:,} tokens and had to be repaired"
        )


def print_report(report: Report) -> None:
    """Print what became of the queries, by task and language, by cosine, and the cost."""
    print_table(["QUERIES", "##"], [[name, f"{number:,}"] for name, number in _outcomes(report)])
    if report.groups:
        rows = [
            [each.task, each.language, f"{each.num_written:,}", f"{each.num_kept:,}"]
            for each in report.groups
        ]
        print_table(["TASK", "LANGUAGE", "WRITTEN#", "KEPT#"], rows)
    if any(report.histogram):
        print_table(["COSINE", "##", "SHARE"], _histogram(report))
    print_table(["SPENT", "##"], list(_spent(report.spending)))


def _outcomes(report: Report) -> Iterator[tuple[str, int]]:
    yield "asked for", report.num_asked
    yield "kept", report.num_kept
    for reason, number in report.rejected.items():
        yield f"rejected: {reason}", number
    if report.num_waiting:
        yield "not answered yet", report.num_waiting
    for reason, number in report.skipped_passages.items():
        yield f"passages skipped: {reason}", number


def _histogram(report: Report) -> list[list[str]]:
    most = max(report.histogram)
    edges = pairwise(HISTOGRAM_EDGES)
    return [
        [f"{low:+.1f} to {high:+.1f}", f"{number:,}", "█" * round(_BAR_WIDTH * number / most)]
        for (low, high), number in zip(edges, report.histogram, strict=True)
        if number
    ]


def _spent(spending: Spending) -> Iterator[list[str]]:
    yield ["requests", f"{spending.num_requests:,}"]
    yield ["of them failed", f"{spending.num_failed_requests:,}"]
    yield ["answers repaired", f"{spending.num_repairs:,}"]
    yield ["prompt tokens", f"{spending.prompt_tokens:,}"]
    yield ["tokens of answers", f"{spending.completion_tokens:,}"]
    if spending.num_estimated_answers:
        yield ["answers with estimated tokens", f"{spending.num_estimated_answers:,}"]
    if spending.cost is not None:
        yield ["cost", f"{spending.cost:,.4f} {spending.currency}"]
