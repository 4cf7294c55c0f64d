"""`embedfleet mine`: hard negatives for training examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedfleet.cli.output import note, print_table, progress

if TYPE_CHECKING:
    from embedfleet.tuning.mining import MiningReport

__all__ = ["mine"]

_READ = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("-m", "--model", required=True, metavar="SOURCE", help="Embedder that searches.")
@click.option("--data", type=_READ, required=True, help="Examples: .jsonl of query, positives.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The same examples with more negatives.",
)
@click.option("--corpus", type=_READ, help="Documents: .jsonl of text.  [default: positives]")
@click.option("--negatives", type=int, default=7, show_default=True, help="Of a query, at most.")
@click.option(
    "--margin",
    type=float,
    default=0.05,
    show_default=True,
    help="Less similar than every positive by so much.",
)
@click.option("--max-similarity", type=float, help="Not more similar than this.  [default: any]")
@click.option("--skip-top", type=int, default=0, show_default=True, help="Pass over the nearest.")
@click.option("--top-k", type=int, default=100, show_default=True, help="Among the nearest.")
@click.option(
    "--order",
    type=click.Choice(["hardest", "random"]),
    default="hardest",
    show_default=True,
    help="Which to take where more pass.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of a random order.")
@click.option("--dimension", type=int, help="Leading components compared.  [default: all]")
@click.option(
    "--max-document-tokens", type=int, default=512, show_default=True, help="Ends are cut."
)
@click.option("--reranker", metavar="SOURCE", help="Drops what it takes for an answer.")
@click.option(
    "--max-score", type=float, default=0.5, show_default=True, help="Of the reranker, 0 to 1."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."
)
def mine(**given: Any) -> None:
    """Find hard negatives for training examples.

    Documents near a query that are not among its positives. What is nearer than a positive less
    the margin counts as an answer that nobody marked, and is left out. Negatives that examples
    have stay. SOURCE is a folder, embedded/NAME or a pinned hub name.
    """
    # Here, because it loads a tensor library.
    from embedfleet.engine import EngineOptions
    from embedfleet.tuning.mining import MiningFiles
    from embedfleet.tuning.mining import mine as mine_negatives
    from embedfleet.tuning.negatives import MiningSettings, Order
    from embedfleet.tuning.searching import MiningModels

    models = MiningModels(
        embedder=given["model"],
        options=EngineOptions(given["device"], given["dtype"]),
        **{name: given[name] for name in _MODEL_OPTIONS},
    )
    settings = MiningSettings(
        order=Order(given["order"]), **{name: given[name] for name in _SETTINGS}
    )
    files = MiningFiles(given["data"], given["output"], given["corpus"])
    _show(mine_negatives(files, models, settings, progress))
    note(f"Wrote {given['output']}.")


_MODEL_OPTIONS = ("dimension", "max_document_tokens", "reranker", "max_score")
_SETTINGS = ("negatives", "margin", "max_similarity", "skip_top", "top_k", "seed")


def _show(report: MiningReport) -> None:
    rows = [
        ("examples", report.num_examples),
        ("queries", report.num_queries),
        ("documents searched", report.num_candidates),
        ("duplicates removed", report.num_duplicates),
        ("entries without text", report.num_empty),
        ("negatives found", report.num_mined),
        ("queries with fewer than asked for", report.num_short),
        ("left out: too near a positive", report.too_near_positive),
        ("left out: above --max-similarity", report.too_similar),
        ("left out: answers to the reranker", report.too_relevant),
    ]
    print_table(["WHAT", "COUNT#"], [[what, f"{count:,}"] for what, count in rows])
