"""`embedfleet embed`: texts to vectors, of any number, in bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit

from embedfleet.cli.connection import Connection, connection_options, model_of_role
from embedfleet.cli.inputs import Texts, text_options, texts_from, truncation_option
from embedfleet.cli.output import note, progress
from embedfleet.cli.sinks import Sink, open_sink
from embedfleet.client import Client, EmbedKeywords
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import OutputType, Provenance, Role

__all__ = ["embed"]

_TYPES = click.Choice([kind.value.lower() for kind in OutputType])
# Failed texts named one by one; the rest are counted.
SHOWN_ERRORS = 10


@dataclass(slots=True)
class _Totals:
    """What a whole input came to."""

    num_items: int = 0
    num_tokens: int = 0
    dimension: int = 0
    num_failed: int = 0
    provenance: Provenance | None = None


@click.command()
@click.argument("texts", nargs=-1)
@click.option("-m", "--model", default="", help="Embedder; not needed where there is only one.")
@click.option("--query", "input_type", flag_value="QUERY", help="The texts are asked for.")
@click.option("--document", "input_type", flag_value="DOCUMENT", help="They are searched in.")
@click.option("--instruction", help="Instead of the model's own; only with --query.")
@click.option("--dimension", type=int, help="Keep that many leading components.")
@click.option("--no-normalize", is_flag=True, help="Not of unit length.")
@click.option("--output-type", type=_TYPES, help="Of a component. Default: the model's.")
@truncation_option
@click.option("--output", type=click.Choice(["table", "jsonl", "npy"]), help="Default: table.")
@click.option("--output-file", type=click.Path(dir_okay=False, path_type=Path), help=".npy, .jsonl")
@text_options
@connection_options
def embed(connection: Connection, **given: Any) -> None:
    """Turn texts into vectors.

    TEXTS come as arguments, from --file or from stdin. Say what they are with --query or
    --document: the two give different vectors.
    """
    if not given["input_type"]:
        raise click.UsageError(
            "Say what the texts are: --query if they are asked for, --document if they are "
            "searched in. The two give different vectors."
        )
    texts = texts_from(given["texts"], given["file"], given["field"])
    output_type = OutputType(given["output_type"].upper()) if given["output_type"] else None
    keywords = EmbedKeywords(
        instruction=given["instruction"],
        dimension=given["dimension"],
        normalize=not given["no_normalize"],
        output_type=output_type,
        truncation=given["truncation"],
        # A whole file waits behind people who wait.
        priority="INTERACTIVE" if given["texts"] else "BULK",
        on_item_error="keep",
    )
    start = time.monotonic()
    with (
        connection.open() as client,
        open_sink(given["output"], given["output_file"], output_type) as sink,
    ):
        model = model_of_role(client, given["model"], Role.EMBEDDER)
        totals = _run(client, (model, given["input_type"], keywords), texts, sink)
        if not totals.num_items:
            raise click.UsageError("The input has no text.")
        sink.finish()
    _summary(totals, time.monotonic() - start)
    if totals.num_failed:
        raise Exit(1)


def _run(client: Client, call: tuple[str, str, EmbedKeywords], texts: Texts, sink: Sink) -> _Totals:
    """Pass every batch to the sink; `call` is model, input type and keywords."""
    model, input_type, keywords = call
    totals = _Totals()
    read = deque[str]()
    items = _remember(texts.items, read)
    with progress("embedding", texts.total) as advance:
        for start, part in client.embed_batches(model, items, input_type=input_type, **keywords):
            sink.add(start, [read.popleft() for _ in range(len(part))], part)
            for error in part.errors.values():
                _tell(error, totals)
            totals.num_items += len(part)
            totals.num_tokens += part.usage.input_tokens
            totals.dimension = max(totals.dimension, part.dimension)
            totals.provenance = part.provenance
            advance(len(part))
    return totals


def _remember(items: Iterable[str], read: deque[str]) -> Iterator[str]:
    """Pass texts on, keeping those whose results are not here yet."""
    for item in items:
        read.append(item)
        yield item


def _tell(error: EmbedfleetError, totals: _Totals) -> None:
    totals.num_failed += 1
    if totals.num_failed <= SHOWN_ERRORS:
        note(f"embedfleet: {error.message}")


def _summary(totals: _Totals, seconds: float) -> None:
    if totals.num_failed:
        note(f"embedfleet: {totals.num_failed:,} of {totals.num_items:,} texts have no vector")
    made_by = totals.provenance
    note(
        f"{totals.num_items - totals.num_failed:,} vectors of {totals.dimension:,}, "
        f"{totals.num_tokens:,} tokens in {seconds:.1f} s"
        + (f"; {made_by.model}, contract {made_by.contract_hash}" if made_by else "")
    )
