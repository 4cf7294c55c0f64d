"""`embedfleet validate`: every problem of every manifest at once."""

from __future__ import annotations

import sys

import click
from click.exceptions import Exit

from embedfleet.cli.options import files_option
from embedfleet.errors import InvalidManifest
from embedfleet.resources.manifest import load_manifests

__all__ = ["validate"]


@click.command()
@files_option
def validate(files: tuple[str, ...]) -> None:
    """Check manifests, naming every problem.

    Each problem is a line: file and document, resource, field, value, limit, what to do.
    """
    try:
        found = load_manifests(files, sys.stdin)
    except InvalidManifest as refusal:
        for problem in refusal.problems:
            click.echo(str(problem), err=True)
        count = len(refusal.problems)
        click.echo(f"embedfleet: {count} problem{'s' * (count != 1)} found", err=True)
        raise Exit(1) from refusal
    for resource in found.resources():
        click.echo(f"{resource.kind}/{resource.name}: ok")
