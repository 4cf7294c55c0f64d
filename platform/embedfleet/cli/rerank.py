"""`embedfleet rerank`: documents ordered by how well they answer a query."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.exceptions import Exit

from embedfleet.cli.connection import Connection, connection_options, model_of_role
from embedfleet.cli.inputs import text_options, texts_from, truncation_option
from embedfleet.cli.output import format_option, note, preview, print_table, write_json_line
from embedfleet.client import Ranking, RerankKeywords
from embedfleet.messages import Role

__all__ = ["rerank"]


@click.command()
@click.argument("documents", nargs=-1)
@click.option("-q", "--query", required=True, help="What was asked.")
@click.option("-m", "--model", default="", help="Reranker; not needed where there is only one.")
@click.option("-n", "--top-n", type=click.IntRange(min=1), help="Show the best only.")
@click.option("--instruction", help="Instead of the model's own.")
@click.option("--raw-scores", is_flag=True, help="Logits instead of scores from 0 to 1.")
@truncation_option
@format_option
@text_options
@connection_options
def rerank(connection: Connection, **given: Any) -> None:
    """Order documents by how they answer a query.

    DOCUMENTS come as arguments, from --file or from stdin.
    """
    documents = list(texts_from(given["documents"], given["file"], given["field"]).items)
    keywords = RerankKeywords(
        instruction=given["instruction"],
        top_n=given["top_n"],
        raw_scores=given["raw_scores"],
        truncation=given["truncation"],
        on_item_error="keep",
    )
    with connection.open() as client:
        model = model_of_role(client, given["model"], Role.RERANKER)
        ranking = client.rerank(model, given["query"], documents, **keywords)
    _print(ranking, given["output"])
    for _, error in sorted(ranking.errors.items()):
        note(f"embedfleet: {error.message}")
    if ranking.errors:
        raise Exit(1)


def _print(ranking: Ranking, output: str) -> None:
    if output == "jsonl":
        for result in ranking.results:
            record = {
                "index": result.index,
                "score": result.score,
                "document": result.document,
                "num_tokens": result.num_tokens,
                "truncated": result.truncated,
            }
            write_json_line(record, sys.stdout)
        return
    print_table(
        ["SCORE#", "INDEX#", "DOCUMENT"],
        [[f"{r.score:.4f}", str(r.index), preview(r.document, 80)] for r in ranking.results],
    )
