"""`embedfleet golden`: what a served model gives for the golden set, as a ConfigMap to keep."""

from __future__ import annotations

from textwrap import indent

import click
import yaml

from embedfleet.cli.connection import Connection, connection_options
from embedfleet.golden import GOLDEN_KEY

__all__ = ["golden"]


@click.command()
@click.option("-m", "--model", required=True, help="Embedder or reranker.")
@click.option("--name", help="Of the ConfigMap.  [default: MODEL-golden]")
@connection_options
def golden(connection: Connection, model: str, name: str | None) -> None:
    """Record golden outputs of a served model.

    Apply the ConfigMap that is printed and name it in spec.verification.goldenConfigMapName: a
    replica that gives anything else takes no traffic.
    """
    with connection.open() as client:
        name = name or f"{client.model(model).name}-golden"
        found = client.golden(model)
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    # Line by line, since people review it.
    data = f"data:\n  {GOLDEN_KEY}: |-\n{indent(found.to_json(), '    ')}\n"
    click.echo(yaml.safe_dump(head, sort_keys=False) + data, nl=False)
