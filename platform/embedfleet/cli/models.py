"""`embedfleet models`: what a fleet serves and what each vector is made of."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from embedfleet.cli.connection import Connection, connection_options
from embedfleet.cli.output import format_option, note, print_table, write_json_line
from embedfleet.client import ModelInfo

__all__ = ["models"]


@click.command()
@format_option
@connection_options
def models(connection: Connection, output: str) -> None:
    """List the models of a fleet."""
    with connection.open() as client:
        found = client.models()
    if output == "jsonl":
        for model in found:
            write_json_line(asdict(model), sys.stdout)
        return
    columns = ["NAME", "ROLE", "STATE", "SOURCE", "DIMENSION#", "MAX TOKENS#", "ON", "CONTRACT"]
    print_table(columns, [_row(model) for model in found])
    for model in found:
        if not model.ready:
            note(f"{model.name} is not ready: {model.message or 'no reason given'}")


def _row(model: ModelInfo) -> list[str]:
    return [
        ", ".join([model.name, *model.aliases]),
        model.role.value,
        "ready" if model.ready else "not ready",
        model.source,
        f"{model.default_dimension:,}" if model.default_dimension else "",
        f"{model.max_tokens:,}" if model.max_tokens else "",
        " ".join(part for part in (model.device, model.dtype) if part),
        model.contract_hash,
    ]
