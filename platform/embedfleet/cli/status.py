"""`embedfleet status`: the applications, replicas and failures of fleets on this machine."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from embedfleet.cli.options import fleet_option
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.errors import EmbedfleetError, Unavailable
from embedfleet.local.edge import listens
from embedfleet.local.readiness import applications
from embedfleet.local.state import list_states

__all__ = ["status"]


@click.command()
@fleet_option
def status(fleet: str) -> None:
    """Show what runs on this machine.

    Every fleet with its applications, replicas and failures, or the one named.
    """
    settings, console = Settings.load(), Console(highlight=False)
    states = [] if fleet else list_states(settings.home)
    failed = False
    for state in states or [choose_fleet(settings, fleet)]:
        table = Table(title=f"{state.name} at {state.endpoint}", title_justify="left")
        for column in ("application", "status", "replicas", "pids", "message"):
            table.add_column(column)
        if not listens(state.endpoint):
            failed = True
            table.add_row("edge", "UNREACHABLE", "", "", f"nothing listens at {state.endpoint}")
        try:
            for app in applications(state):
                count = f"{len(app.pids)}/{app.target_replicas}"
                pids = " ".join(map(str, app.pids))
                table.add_row(app.name, app.status, count, pids, app.message)
        except EmbedfleetError as error:
            failed = True
            table.add_row("-", "UNREACHABLE", "", "", error.message)
        console.print(table)
    if failed:
        raise Unavailable("A fleet does not answer. Clean up with: embedfleet down --fleet NAME")
