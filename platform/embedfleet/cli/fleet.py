"""Commands that start, change, inspect and stop a fleet on this machine."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from embedfleet.config import Settings
from embedfleet.errors import EmbedfleetError, InvalidRequest, Unavailable
from embedfleet.local.fleet import Up, apply, bring_up, plan_against, take_down
from embedfleet.local.node import processes_of
from embedfleet.local.readiness import Progress, applications
from embedfleet.local.state import FleetState, list_states
from embedfleet.resources import Manifests, load_manifests

__all__ = ["apply_command", "demo", "down", "plan_command", "status", "up"]

_files = click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Manifest file, folder of manifests, or - for standard input. Repeatable.",
)
_fleet = click.option("--fleet", metavar="NAME", help="Which fleet, if several run here.")


def _console() -> Console:
    return Console(highlight=False)


def _reporter(console: Console) -> Progress:
    started = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}", soft_wrap=True)

    return report


def _load(files: Sequence[str]) -> Manifests:
    return load_manifests(files, sys.stdin)


def _choose(settings: Settings, name: str | None) -> FleetState:
    """Find the fleet that is meant.

    Raises:
        Unavailable: None of that name runs here.
        InvalidRequest: Several run, and none was named.
    """
    states = list_states(settings.home)
    if name is not None:
        states = [state for state in states if state.name == name]
    if not states:
        which = f"Fleet {name!r}" if name else "No fleet"
        verb = "does not run" if name else "runs"
        raise Unavailable(f"{which} {verb} on this machine. Start one with: embedfleet up -f PATH")
    if len(states) > 1:
        names = ", ".join(state.name for state in states)
        raise InvalidRequest(f"Several fleets run here: {names}. Choose one with --fleet.")
    return states[0]


@click.command(short_help="Start a fleet from manifests.")
@_files
@click.option("--detach", is_flag=True, help="Return once the fleet is ready; it keeps running.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Where clients call; 0 for any free port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option("--num-cpus", type=click.IntRange(1), help="Cores to use. Default: all.")
@click.option("--ray", "dashboard", default="", metavar="URL", help="Use a running Ray cluster.")
@click.option("--ray-token", "token", default="", metavar="TOKEN", help="That cluster's token.")
def up(
    files: tuple[str, ...],
    detach: bool,
    port: int | None,
    host: str,
    num_cpus: int | None,
    dashboard: str,
    token: str,
) -> None:
    """Start Ray, Serve and the edge for the Fleet in the manifests, and wait until it is ready.

    In the foreground the fleet stops with Ctrl-C.
    """
    settings, console = Settings.load(), _console()
    how = Up(
        home=settings.home,
        environment=settings.environment,
        host=host,
        port=port,
        num_cpus=num_cpus,
        dashboard=dashboard,
        token=token,
    )
    state = bring_up(_load(files), how, _reporter(console))
    _print_next(console, state)
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


def _print_next(console: Console, state: FleetState) -> None:
    console.print(f"\nFleet [bold]{state.name}[/bold] answers at [bold]{state.endpoint}[/bold]")
    console.print(
        "  embedfleet models\n"
        '  embedfleet embed --model NAME --document "some text"\n'
        f"  grpcurl -plaintext {state.endpoint} list\n"
        f"  embedfleet down --fleet {state.name}"
    )


@click.command(short_help="Show fleets and their models.")
@_fleet
def status(fleet: str | None) -> None:
    """Show every fleet of this machine with its applications, replicas and failures."""
    settings, console = Settings.load(), _console()
    states = [_choose(settings, fleet)] if fleet else list_states(settings.home)
    if not states:
        _choose(settings, None)
    failed = False
    for state in states:
        table = Table(title=f"{state.name} at {state.endpoint}", title_justify="left")
        for column in ("application", "status", "replicas", "pids", "message"):
            table.add_column(column)
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


@click.command("plan", short_help="Say what applying manifests would do.")
@_files
@_fleet
def plan_command(files: tuple[str, ...], fleet: str | None) -> None:
    """Classify every change between the running fleet and the manifests, and change nothing."""
    manifests = _load(files)
    state = _choose(Settings.load(), fleet or manifests.only_fleet().name)
    _console().print(str(plan_against(manifests, state)), soft_wrap=True)


@click.command("apply", short_help="Change a running fleet.")
@_files
@_fleet
def apply_command(files: tuple[str, ...], fleet: str | None) -> None:
    """Make the running fleet what the manifests say, without dropping requests."""
    manifests, console = _load(files), _console()
    state = _choose(Settings.load(), fleet or manifests.only_fleet().name)
    console.print(str(plan_against(manifests, state)), soft_wrap=True)
    apply(manifests, state, _reporter(console))
    console.print("ready")


@click.command(short_help="Stop a fleet.")
@_fleet
@click.option("--all", "everything", is_flag=True, help="Stop every fleet of this machine.")
def down(fleet: str | None, everything: bool) -> None:
    """Stop every process of a fleet and delete its files."""
    settings, console = Settings.load(), _console()
    states = list_states(settings.home) if everything else [_choose(settings, fleet)]
    for state in states:
        take_down(state, settings.home)
        console.print(f"Fleet {state.name} is stopped.")


@click.command(short_help="Start a small fleet, search, stop.")
@click.option("--questions", default=4, show_default=True, type=click.IntRange(1, 20))
def demo(questions: int) -> None:
    """Start a fleet of the models that come with the package, search a corpus, stop everything.

    Uses free ports and no network, and leaves nothing behind.
    """
    from embedfleet.cli.demo import search_demo

    console = _console()
    home = Path(tempfile.mkdtemp(prefix="ef-demo-"))
    settings = replace(Settings.load(), home=home)
    try:
        with resources.as_file(resources.files("embedfleet.embedded") / "fleet.yaml") as manifest:
            manifests = load_manifests([manifest])
        how = Up(home=home, environment=settings.environment, port=0)
        state = bring_up(manifests, how, _reporter(console))
        try:
            console.print(f"Fleet {state.name} answers at {state.endpoint}")
            search_demo(state.endpoint, console, questions)
        finally:
            take_down(state, home)
        console.print("Everything is stopped.")
    finally:
        shutil.rmtree(home, ignore_errors=True)
