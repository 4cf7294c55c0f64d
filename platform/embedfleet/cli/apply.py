"""`embedfleet apply`: a running fleet becomes what its manifests say."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from embedfleet.cli.options import contract_option, files_option
from embedfleet.cli.output import reporter
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.local.changing import apply as apply_to
from embedfleet.local.changing import plan_against
from embedfleet.rendering.plan import Impact
from embedfleet.resources import load_manifests

__all__ = ["apply"]


@click.command()
@files_option
@contract_option
def apply(files: tuple[str, ...], allow_contract_change: bool) -> None:
    """Change a running fleet to its manifests.

    Requests go on meanwhile; what is interrupted is said first, as by `embedfleet plan`.
    """
    manifests, console = load_manifests(files, sys.stdin), Console(highlight=False)
    state = choose_fleet(Settings.load(), manifests.only_fleet().name)
    change = plan_against(manifests, state, allow_contract_change=allow_contract_change)
    # A refusal tells the plan itself.
    if change.impact < Impact.NEW_CLUSTER:
        click.echo(str(change))
    apply_to(manifests, state, reporter(console), allow_contract_change=allow_contract_change)
    console.print("ready")
