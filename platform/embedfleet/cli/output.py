"""Tables, JSON Lines and progress: what a person or a pipe reads."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

__all__ = [
    "Advance",
    "format_option",
    "note",
    "preview",
    "print_table",
    "progress",
    "reporter",
    "write_json_line",
]

# Wide enough that nothing is cut where no terminal says how wide it is.
PIPE_COLUMNS = 10_000
# From this many texts on, work takes long enough to be watched.
LONG_INPUT = 64


format_option = click.option(
    "--output",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="For people, or one JSON object a line.",
)


class Advance(Protocol):
    """Moves the progress bar."""

    def __call__(self, done: int) -> None:
        """Count what was finished since the last call."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns' names; names ending in `#` are aligned right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.rstrip("#") or "#", justify="right" if name[-1] == "#" else "left")
    for row in rows:
        # Text, so that brackets of the user's own are not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    console = Console(file=sys.stdout, width=width, highlight=False)
    console.print(table)


def write_json_line(record: Mapping[str, Any], target: TextIO) -> None:
    """Write one record as one line."""
    target.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def preview(text: str, width: int = 48) -> str:
    """Show the start of a text on one line."""
    line = " ".join(text[: width * 4].split())
    return line if len(line) <= width and len(text) <= width * 4 else line[: width - 1] + "…"


def note(message: str) -> None:
    """Tell something beside the result, which may be piped elsewhere."""
    click.echo(message, err=True)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show a bar on the terminal while a long input runs; nothing elsewhere."""
    short = total is not None and total < LONG_INPUT
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=short or not sys.stderr.isatty(),
    ) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.advance(task, done)


def reporter(console: Console) -> Callable[[str], None]:
    """Give a function that prints what goes on, with the seconds since now."""
    started = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}", soft_wrap=True)

    return report
