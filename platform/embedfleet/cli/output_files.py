"""Files that a command leaves after hours of work: tried before it, whole or as before after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from embedfleet.durable import partial_name, replacing_bytes

__all__ = ["opened", "try_file", "write_file"]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the path's place once it is whole: half of one looks like one.

    A pipe, a terminal or a device takes what comes as it comes.

    Raises:
        OSError: It cannot be written; what was at the path before is still there.
    """
    if _is_stream(path):
        with path.open("wb") as target:
            yield target
    else:
        # Behind a link the file is replaced, not the link.
        with replacing_bytes(path.resolve()) as target:
            yield target


def try_file(option: str, path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        click.UsageError: It names the option, the file and the cause.
    """
    try:
        if _is_stream(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            partial = partial_name(path.resolve())
            partial.open("wb").close()
            partial.unlink()
    except OSError as error:
        raise click.UsageError(
            f"{option} is {path}, which cannot be written: {error.strerror}. Name another file."
        ) from error


def write_file(option: str, path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let a file be filled, and put it in its place once it is whole.

    Raises:
        click.ClickException: It names the option, the file and the cause.
    """
    try:
        with opened(path) as target:
            write(target)
    except OSError as error:
        raise click.ClickException(
            f"{option} is {path}, which cannot be written: {error.strerror}. Make room or name "
            "another file, and run the command again."
        ) from error


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()
