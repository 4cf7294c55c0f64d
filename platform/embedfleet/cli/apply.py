"""`embedfleet apply`: a running fleet becomes what its manifests say."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from embedfleet.cli.options import files_option
from embedfleet.cli.output import reporter
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.local.fleet import apply as apply_to
from embedfleet.local.fleet import plan_against
from embedfleet.resources import load_manifests

__all__ = ["apply"]


@click.command()
@files_option
def apply(files: tuple[str, ...]) -> None:
    """Change a running fleet to its manifests.

    Requests go on meanwhile; what is interrupted is said first, as by `embedfleet plan`.
    """
    manifests, console = load_manifests(files, sys.stdin), Console(highlight=False)
    state = choose_fleet(Settings.load(), manifests.only_fleet().name)
    click.echo(str(plan_against(manifests, state)))
    apply_to(manifests, state, reporter(console))
    console.print("ready")
