"""`embedfleet up`: a fleet on this machine, in the foreground or left running."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.console import Console

from embedfleet.cli.options import files_option
from embedfleet.cli.output import reporter
from embedfleet.config import Settings
from embedfleet.errors import Unavailable
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.node import processes_of
from embedfleet.local.state import FleetState
from embedfleet.resources import load_manifests
from embedfleet.resources.fleet import Tls

__all__ = ["first_calls", "up"]


def _dashboard(context: click.Context, option: click.Parameter, url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url} is no address; give one such as http://ray-head:8265.")
    return url


@click.command()
@files_option
@click.option("--detach", is_flag=True, help="Return once the fleet is ready; it keeps running.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Where clients call; 0 for any free port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option("--num-cpus", type=click.IntRange(1), help="Cores to use. Default: all.")
@click.option(
    "--ray",
    "dashboard",
    default="",
    metavar="URL",
    callback=_dashboard,
    help="Use the running Ray cluster of this dashboard.",
)
@click.option(
    "--ray-token",
    "token",
    default="",
    envvar="EMBEDFLEET_RAY_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="That cluster's token.",
)
def up(files: tuple[str, ...], detach: bool, **given: Any) -> None:
    """Start a fleet on this machine.

    Starts Ray, Serve and the edge for the Fleet in the manifests and waits until every model is
    ready. In the foreground the fleet stops with Ctrl-C.
    """
    settings, console = Settings.load(), Console(highlight=False)
    how = Up(home=settings.home, environment=settings.environment, **given)
    manifests = load_manifests(files, sys.stdin)
    state = bring_up(manifests, how, reporter(console))
    console.print(f"\nFleet [bold]{state.name}[/bold] answers at [bold]{state.endpoint}[/bold]")
    console.print(
        first_calls(state.name, state.endpoint, manifests.only_fleet().spec.tls), soft_wrap=True
    )
    if detach:
        return
    console.print("\nCtrl-C stops it.")
    try:
        _watch(state)
    finally:
        console.print("stopping")
        take_down(state, settings.home)


def _watch(state: FleetState) -> None:
    """Stay until the fleet ends by itself.

    Raises:
        Unavailable: Its processes are gone.
    """
    while processes_of(state.fleet_id):
        time.sleep(1.0)
    raise Unavailable(f"Fleet {state.name!r} has ended. Look at its logs in {state.folder}.")


def first_calls(fleet: str, endpoint: str, tls: Tls | None) -> str:
    """Say what to type next: calls with the certificates that the fleet asks for."""
    ours = theirs = ""
    if tls is not None:
        ours, theirs = " --tls-ca CA.pem", "-cacert CA.pem"
        if tls.verifies_clients:
            ours += " --tls-cert CERT.pem --tls-key KEY.pem"
            theirs += " -cert CERT.pem -key KEY.pem"
    return (
        f"  embedfleet models{ours}\n"
        f'  embedfleet embed{ours} --model NAME --document "some text"\n'
        f"  grpcurl {theirs or '-plaintext'} {endpoint} list\n"
        f"  embedfleet down --fleet {fleet}"
    )
