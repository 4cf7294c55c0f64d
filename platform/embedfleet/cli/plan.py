"""`embedfleet plan`: what applying manifests would do to the fleet that runs."""

from __future__ import annotations

import sys

import click

from embedfleet.cli.options import contract_option, files_option
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.local.fleet import plan_against
from embedfleet.resources import load_manifests

__all__ = ["plan"]


@click.command()
@files_option
@contract_option
def plan(files: tuple[str, ...], allow_contract_change: bool) -> None:
    """Show what applying manifests would change.

    Classifies every difference between the manifests and the running fleet of that name, and
    changes nothing.
    """
    manifests = load_manifests(files, sys.stdin)
    state = choose_fleet(Settings.load(), manifests.only_fleet().name)
    change = plan_against(manifests, state, allow_contract_change=allow_contract_change)
    click.echo(str(change))
