"""The `embedfleet` command: finds the subcommand, runs it, and turns failures into one line.

Subcommands are imported when they are called, so that help and wrong usage answer at once. Exit
codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

import click

from embedfleet import __version__
from embedfleet.errors import EmbedfleetError

__all__ = ["COMMANDS", "Entry", "LazyGroup", "cli", "main", "run"]


class Entry(NamedTuple):
    """Where a subcommand is defined, and its line in the help."""

    target: str
    help: str


COMMANDS = {
    "demo": Entry("embedfleet.cli.demo:demo", "Start a fleet, search a small corpus, stop."),
    "up": Entry("embedfleet.cli.up:up", "Start a fleet on this machine."),
    "down": Entry("embedfleet.cli.down:down", "Stop a fleet on this machine."),
    "status": Entry("embedfleet.cli.status:status", "Show what runs on this machine."),
    "plan": Entry("embedfleet.cli.plan:plan", "Show what applying manifests would change."),
    "apply": Entry("embedfleet.cli.apply:apply", "Change a running fleet to its manifests."),
    "validate": Entry("embedfleet.cli.validate:validate", "Check manifests, naming every problem."),
    "fetch": Entry("embedfleet.cli.fetch:fetch", "Fetch a model's files into a folder."),
    "embed": Entry("embedfleet.cli.embed:embed", "Turn texts into vectors."),
    "rerank": Entry("embedfleet.cli.rerank:rerank", "Order documents by how they answer a query."),
    "tokenize": Entry("embedfleet.cli.token_ids:tokenize", "Show the token ids a model computes."),
    "tune": Entry("embedfleet.cli.tune:tune", "Train an embedder or a reranker."),
    "merge": Entry("embedfleet.cli.merge:merge", "Merge checkpoints of one model into one."),
    "mine": Entry("embedfleet.cli.mine:mine", "Find hard negatives for training examples."),
    "models": Entry("embedfleet.cli.models:models", "List the models of a fleet."),
    "evaluate": Entry("embedfleet.cli.evaluate:evaluate", "Measure models on your data."),
    "synthesize": Entry(
        "embedfleet.cli.synthesize:synthesize", "Write queries for passages with a language model."
    ),
    "golden": Entry("embedfleet.cli.golden:golden", "Record golden outputs of a served model."),
    "doctor": Entry("embedfleet.cli.doctor:doctor", "Tell what was found on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].target.partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the closest command where one is misspelt."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "See --help for the list."
            ctx.fail(f"There is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="embedfleet", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the trace of a failure.")
def cli(debug: bool) -> None:
    """Run the Qwen3 Embedding family as a fleet, and call it."""


def main() -> None:
    """Run the command line of this process."""
    # What a command started is stopped in its `finally`, however the command is ended.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    sys.exit(run(sys.argv[1:]))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result = cli.main(list(arguments), prog_name="embedfleet", standalone_mode=False)
        # Click gives the code of `ctx.exit` back as the result.
        return result if isinstance(result, int) else 0
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    except (click.Abort, KeyboardInterrupt):
        # The terminal shows ^C: start on a line of its own.
        click.echo("\nembedfleet: interrupted", err=True)
        return 130
    except Exception as failure:
        if "--debug" in arguments:
            traceback.print_exc()
        click.echo(f"embedfleet: {_sentence(failure)}", err=True)
        return 1


def _sentence(failure: Exception) -> str:
    if isinstance(failure, EmbedfleetError):
        return failure.message
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    what = f"{type(failure).__name__}: {failure}"
    return f"{what}. This is a bug; `embedfleet --debug ...` shows where."
