"""Texts from arguments, a file or stdin, read as they are needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from embedfleet.errors import InvalidRequest

__all__ = ["Texts", "text_options", "texts_from", "truncation_option"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STDIN = "-"


truncation_option = click.option(
    "--truncation",
    type=click.Choice(["none", "end", "start"]),
    default="none",
    show_default=True,
    help="What a text over the limit loses; none refuses it.",
)


@dataclass(frozen=True, slots=True)
class Texts:
    """An input to read once.

    Attributes:
        total: How many there are, None where only reading tells.
    """

    items: Iterable[str]
    total: int | None


def text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name an input."""
    for decorate in (
        click.option(
            "--field", default="text", show_default=True, help="Where the text is in a .jsonl line."
        ),
        click.option(
            "-f",
            "--file",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            help="One text a line, or .jsonl; - for stdin.",
        ),
    ):
        command = decorate(command)
    return command


def texts_from(arguments: Sequence[str], file: str | None, field: str) -> Texts:
    """Choose the input: arguments, else the file, else what is piped in.

    Raises:
        click.UsageError: There is none, or two.
    """
    if arguments and file:
        raise click.UsageError("Give texts as arguments or with --file, not both.")
    if arguments:
        return Texts(arguments, len(arguments))
    stdin = sys.stdin.buffer
    if file is None and sys.stdin.isatty():
        raise click.UsageError("Give texts as arguments, with --file FILE, or pipe them in.")
    if file is None or file == STDIN:
        return Texts(_lines(stdin, "stdin"), None)
    path = Path(file)
    return Texts(_of_file(path, field), _num_lines(path))


def _num_lines(path: Path) -> int | None:
    """Count a file's lines; None for a pipe, which gives them only once."""
    if not path.is_file():
        return None
    with path.open("rb") as handle:
        return sum(1 for _ in handle)


def _of_file(path: Path, field: str) -> Iterator[str]:
    with path.open("rb") as handle:
        lines = _lines(handle, str(path))
        yield from _fields(lines, path, field) if path.suffix == ".jsonl" else lines


def _lines(handle: BinaryIO, name: str) -> Iterator[str]:
    """Decode every line as one text, the empty ones too, so that places stay line numbers."""
    for number, line in enumerate(handle, 1):
        data = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            data = data.removeprefix(_BYTE_ORDER_MARK)
        try:
            yield data.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{name}, line {number} is not UTF-8 at byte {error.start}. Save it as UTF-8."
            ) from error


def _fields(lines: Iterable[str], path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where} is not JSON: {error}. Mend the line.") from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise InvalidRequest(
                f"{where} has no text in field {field!r}; it has: {found}. Name another one with "
                "--field."
            )
        yield record[field]
