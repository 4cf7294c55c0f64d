"""Where vectors go: a table of the first ones, JSON Lines as they come, or one array at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol, TextIO

import click
import numpy as np
import numpy.typing as npt

from embedfleet.cli.output import note, preview, print_table, write_json_line
from embedfleet.cli.output_files import opened, try_file
from embedfleet.client import Embeddings
from embedfleet.messages import OutputType

__all__ = ["Sink", "open_sink"]

# Rows of the table: enough to see that the vectors are there.
TABLE_ROWS = 20
SHOWN_COMPONENTS = 4


class Sink(Protocol):
    """Takes the batches of one input in order."""

    def add(self, start: int, texts: list[str], part: Embeddings) -> None:
        """Take one batch: its place, its texts, its results."""

    def finish(self) -> None:
        """Write what had to wait for the last batch."""


class _TableSink:
    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._count = 0

    def add(self, start: int, texts: list[str], part: Embeddings) -> None:
        self._count += len(part)
        for row in range(min(len(part), TABLE_ROWS - len(self._rows))):
            shown = "failed" if start + row in part.errors else _components(part.vectors[row])
            tokens = str(part.num_tokens[row]) + (" (cut)" if part.truncated[row] else "")
            self._rows.append([str(start + row), preview(texts[row]), tokens, shown])

    def finish(self) -> None:
        print_table(["##", "TEXT", "TOKENS#", "VECTOR"], self._rows)
        if self._count > len(self._rows):
            note(
                f"... and {self._count - len(self._rows):,} more; all of them: --output jsonl, or "
                "--output-file vectors.npy"
            )


class _JsonLinesSink:
    def __init__(self, target: TextIO) -> None:
        self._target = target

    def add(self, start: int, texts: list[str], part: Embeddings) -> None:
        for row, vector in enumerate(part.vectors):
            index = start + row
            if index in part.errors:
                error = part.errors[index]
                record: dict[str, Any] = {
                    "index": index,
                    "error": {"reason": error.reason, "message": error.message},
                }
            else:
                record = {
                    "index": index,
                    "embedding": vector.tolist(),
                    "num_tokens": int(part.num_tokens[row]),
                    "truncated": bool(part.truncated[row]),
                }
                if part.scales is not None:
                    record["scale"] = float(part.scales[row])
            write_json_line(record, self._target)

    def finish(self) -> None:
        self._target.flush()


class _NumpySink:
    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._parts: list[npt.NDArray[Any]] = []

    def add(self, start: int, texts: list[str], part: Embeddings) -> None:
        # Also where the model's default is such a type, which nobody named.
        _refuse_scales(part.output_type)
        self._parts.append(part.vectors)

    def finish(self) -> None:
        width = max((part.shape[1] for part in self._parts), default=0)
        # A batch that failed as a whole may not know the dimension.
        parts = [
            part if part.shape[1] == width else np.full((len(part), width), np.nan, part.dtype)
            for part in self._parts
        ]
        whole = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
        # Handed a file itself, numpy asks for its position, which a pipe has not.
        np.save(SimpleNamespace(write=self._target.write), whole)


@contextmanager
def open_sink(
    output: str | None, path: Path | None, output_type: OutputType | None
) -> Iterator[Sink]:
    """Open the sink asked for, before any work is done; what fails leaves a file as it was.

    Raises:
        click.UsageError: The file's name says no format, its format cannot hold the vectors, or it
            cannot be written.
    """
    if path is None:
        if output == "npy":
            raise click.UsageError("Name a file for the array: --output-file vectors.npy")
        yield _JsonLinesSink(sys.stdout) if output == "jsonl" else _TableSink()
        return
    known = {".npy": "npy", ".jsonl": "jsonl"}
    chosen = output or known.get(path.suffix, "")
    if chosen not in known.values():
        raise click.UsageError(
            f"--output-file is {path}; name it .npy or .jsonl, or say --output npy or jsonl."
        )
    if chosen == "npy":
        _refuse_scales(output_type)
    try_file("--output-file", path)
    with opened(path) as target:
        if chosen == "npy":
            yield _NumpySink(target)
        else:
            yield _JsonLinesSink(TextIOWrapper(target, encoding="utf-8"))


def _refuse_scales(output_type: OutputType | None) -> None:
    if output_type in (OutputType.INT8, OutputType.UINT8):
        raise click.UsageError(
            f".npy has no place for the scales of {output_type}; use .jsonl, or --output-type "
            "float16."
        )


def _components(vector: npt.NDArray[Any]) -> str:
    head = vector[:SHOWN_COMPONENTS]
    shown = [f"{x:+.4f}" if vector.dtype.kind == "f" else str(x) for x in head]
    return "[" + ", ".join(shown) + (", ..." if len(vector) > len(head) else "") + "]"
