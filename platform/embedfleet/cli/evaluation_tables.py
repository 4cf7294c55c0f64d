"""An evaluation's report as tables: every system, every dataset, every difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from embedfleet.cli.output import print_table
from embedfleet.evaluation.comparing import MEAN
from embedfleet.evaluation.measures import MEASURES, PRIMARY
from embedfleet.evaluation.similarity import SPEARMAN

__all__ = ["print_report"]

Record = Mapping[str, Any]
_TITLES = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
    "recall@10": "R@10",
    "recall@100": "R@100",
    SPEARMAN: "Spearman",
}


def print_report(report: Record) -> None:
    """Print the tables, values in points of a hundred."""
    datasets = [each["name"] for each in report["datasets"]]
    searched = [each for each in report["systems"] if datasets and datasets[0] in each["quality"]]
    if searched:
        several = len(datasets) > 1
        _systems(searched, MEAN if several else datasets[0])
        if several:
            _by_dataset(searched, [*datasets, MEAN])
        _differences(report["differences"], [*datasets, MEAN] if several else datasets)
    for each in report["pairs"]:
        _similarity(report["systems"], each)
        _differences(report["differences"], [each["name"]], SPEARMAN)
    if report["mteb"]:
        _mteb(report["mteb"])
    if report["systems"]:
        _notes(report)


def _mteb(records: Sequence[Record]) -> None:
    _title("Tasks of mteb, main scores")
    print_table(
        ["SYSTEM", "TASK", "SPLIT", "SUBSET", "MEASURE", "SCORE#"],
        [
            [
                *(each[field] for field in ("model", "task", "split", "subset", "measure")),
                _points(each["value"]),
            ]
            for each in records
        ],
    )


def _systems(systems: Sequence[Record], dataset: str) -> None:
    _title(f"Quality on {'the mean of all data' if dataset == MEAN else dataset}")
    columns = [
        "SYSTEM",
        "DIM#",
        "TYPE",
        "BYTES#",
        "PER SECOND#",
        *(f"{_TITLES[each]}#" for each in MEASURES),
        "95 %",
    ]
    rows = []
    for each in systems:
        quality = each["quality"][dataset]
        rate = each.get("documentsPerSecond") or each.get("pairsPerSecond") or 0
        unit = "pairs" if "pairsPerSecond" in each else "docs"
        rows.append(
            [
                each["name"],
                str(each.get("dimension", "")),
                each.get("outputType", ""),
                f"{each['bytesPerVector']:,}" if "bytesPerVector" in each else "",
                f"{rate:,.0f} {unit}",
                *(_points(quality[measure]["value"]) for measure in MEASURES),
                _bounds(quality[PRIMARY]),
            ]
        )
    print_table(columns, rows)


def _by_dataset(systems: Sequence[Record], datasets: Sequence[str]) -> None:
    _title("nDCG@10 by data, of whole systems")
    rows = [
        [each["name"], *(_value(each["quality"][dataset][PRIMARY]) for dataset in datasets)]
        for each in systems
        if "variantOf" not in each
    ]
    print_table(["SYSTEM", *(f"{name}#" for name in datasets)], rows)


def _similarity(systems: Sequence[Record], pairs: Record) -> None:
    _title(f"Similarity on {pairs['name']}: Spearman of cosines, {pairs['numPairs']:,} pairs")
    rows = [
        [
            each["name"],
            str(each["dimension"]),
            each["outputType"],
            f"{each['bytesPerVector']:,}",
            _value(each["quality"][pairs["name"]][SPEARMAN]),
        ]
        for each in systems
        if pairs["name"] in each["quality"]
    ]
    print_table(["SYSTEM", "DIM#", "TYPE", "BYTES#", "SPEARMAN#"], rows)


def _differences(
    differences: Sequence[Record], datasets: Sequence[str], measure: str = PRIMARY
) -> None:
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for each in differences:
        if each["measure"] == measure and each["dataset"] in datasets:
            texts.setdefault((each["system"], each["against"]), {})[each["dataset"]] = each["text"]
    if not texts:
        return
    _title(f"Differences in {_TITLES[measure]}, paired bootstrap")
    last = datasets[-1]
    print_table(
        ["SYSTEM", "AGAINST", last.upper() if last == MEAN else last, *datasets[:-1]],
        [
            [*pair, said[last], *(said[name] for name in datasets[:-1])]
            for pair, said in texts.items()
        ],
    )


def _notes(report: Record) -> None:
    settings = report["settings"]
    _title("How")
    lines = [f"Baseline: {settings['bm25']}."]
    if any(each.get("outputType", "").startswith("BINARY") for each in report["systems"]):
        lines.append(f"{settings['binary']}.")
    for each in report["datasets"]:
        left_out = [
            f"{each[field]:,} {what}"
            for field, what in (
                ("numWithoutText", "documents without text left out"),
                ("numWithoutRelevant", "queries without a relevant document left out"),
                ("numOwn", "queries that are documents, not to find themselves"),
            )
            if each[field]
        ]
        counts = f"{each['numDocuments']:,} documents, {each['numQueries']:,} queries"
        lines.append(f"{each['name']}: {'; '.join([counts, *left_out])}.")
    for each in report["systems"]:
        if "variantOf" not in each and "numTruncated" in each:
            what = "pairs" if each["kind"] == "reranker" else "documents"
            lines.append(
                f"{each['name']}: {each['numTruncated']:,} {what} cut to "
                f"{settings['maxDocumentTokens']:,} tokens or the model's limit; "
                f"ran on {each['engine']}."
            )
    click.echo("\n".join(lines))


def _title(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


def _value(found: Record) -> str:
    return f"{_points(found['value'])} ({_bounds(found)})"


def _bounds(found: Record) -> str:
    return f"{_points(found['low'])} to {_points(found['high'])}"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"
