"""`embedfleet down`: every process of a fleet ends, every file of it goes."""

from __future__ import annotations

import click

from embedfleet.cli.options import fleet_option
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.local.fleet import take_down
from embedfleet.local.state import list_states

__all__ = ["down"]


@click.command()
@fleet_option
@click.option("--all", "everything", is_flag=True, help="Stop every fleet of this machine.")
def down(fleet: str, everything: bool) -> None:
    """Stop a fleet on this machine.

    Ends every process of it and deletes its files.
    """
    settings = Settings.load()
    states = list_states(settings.home) if everything else [choose_fleet(settings, fleet)]
    for state in states:
        take_down(state, settings.home)
        click.echo(f"Fleet {state.name} is stopped.")
