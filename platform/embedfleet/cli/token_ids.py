"""`embedfleet tokenize`: the exact ids that a model computes, prompt and final tokens included.

Not named after its command: the standard library has a module `tokenize`.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from click.exceptions import Exit

from embedfleet.cli.connection import Connection, connection_options
from embedfleet.cli.inputs import text_options, texts_from, truncation_option
from embedfleet.cli.output import format_option, note, preview, print_table, write_json_line
from embedfleet.client import TokenizeKeywords

__all__ = ["tokenize"]


@click.command()
@click.argument("texts", nargs=-1)
@click.option("-m", "--model", required=True, help="Name or alias.")
@click.option("--query", "input_type", flag_value="QUERY", help="Of an embedder: queries.")
@click.option("--document", "input_type", flag_value="DOCUMENT", help="Of an embedder: documents.")
@click.option("--rerank-query", default="", help="Of a reranker: the texts' query.")
@click.option("--instruction", help="Instead of the model's own.")
@truncation_option
@format_option
@text_options
@connection_options
def tokenize(connection: Connection, **given: Any) -> None:
    """Show the token ids a model computes.

    TEXTS come as arguments, from --file or from stdin. An embedder's are either queries or
    documents; a reranker's are documents for --rerank-query.
    """
    texts = list(texts_from(given["texts"], given["file"], given["field"]).items)
    if bool(given["input_type"]) == bool(given["rerank_query"]):
        raise click.UsageError(
            "Say what the texts are: --query or --document for an embedder, --rerank-query QUERY "
            "for a reranker."
        )
    keywords = TokenizeKeywords(
        input_type=given["input_type"],
        query=given["rerank_query"],
        instruction=given["instruction"],
        truncation=given["truncation"],
        on_item_error="keep",
    )
    with connection.open() as client:
        found = client.tokenize(given["model"], texts, **keywords)
    if given["output"] == "jsonl":
        for index, text in enumerate(found.texts):
            if index not in found.errors:
                record = {"index": index, "ids": text.ids.tolist(), "truncated": text.truncated}
                write_json_line(record, sys.stdout)
    else:
        rows = [
            [str(index), preview(texts[index], 32), str(len(text.ids)), str(text.ids.tolist())]
            for index, text in enumerate(found.texts)
            if index not in found.errors
        ]
        print_table(["##", "TEXT", "TOKENS#", "IDS"], rows)
    for _, error in sorted(found.errors.items()):
        note(f"embedfleet: {error.message}")
    if found.errors:
        raise Exit(1)
