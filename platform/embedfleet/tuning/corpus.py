"""Where every example lies, and in which group: what is kept of files too large to keep.

One pass over the files checks each line and remembers its offset, its group and hashes of its
texts: about thirty bytes an example. Texts are read again, by offset, when a batch needs them.
"""

from __future__ import annotations

import glob
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.errors import InvalidExamples, InvalidRequest
from embedfleet.tuning.examples import MAX_PROBLEMS, Example, parse_example
from embedfleet.tuning.sections import DataFile

__all__ = ["Corpus", "Group", "data_files", "index_corpus"]

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]

_KEPT_INSTRUCTIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """Examples that may stand in one batch.

    Attributes:
        source: Which entry of `data` they are from.
        rows: (n,) int64: which examples.
        weight: Of the entry.
    """

    source: int
    task: str
    language: str
    rows: Int64Array
    weight: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """All examples of a run, by number.

    Attributes:
        sources: Entries of `data`.
        files: In the order of reading.
        file_sources: Entry of each file.
        row_files: (n,) int64: file of each example.
        offsets: (n,) int64: first byte of its line.
        lines: (n,) int64: number of its line, from 1.
        query_hashes: (n,) uint32.
        positive_hashes: (m,) uint32: of all positives, end to end.
        positive_starts: (n + 1,) int64: where each example's positives start.
        groups: In the order in which they first appear.
        instructions: Different ones that examples bring, up to a thousand.
        digest: Of all lines: another one is other data.
    """

    sources: tuple[DataFile, ...]
    files: tuple[Path, ...]
    file_sources: tuple[int, ...]
    row_files: Int64Array
    offsets: Int64Array
    lines: Int64Array
    query_hashes: UInt32Array
    positive_hashes: UInt32Array
    positive_starts: Int64Array
    groups: tuple[Group, ...]
    instructions: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.offsets)

    def where(self, row: int) -> str:
        """Name an example's file and line."""
        return f"{self.files[self.row_files[row]]}, line {self.lines[row]}"

    def read(self, rows: Sequence[int] | Int64Array) -> list[Example]:
        """Read examples again, in the order of rows, with what their source replaces.

        Raises:
            InvalidExamples: A line is not what it was.
            OSError: A file cannot be read.
        """
        examples: dict[int, Example] = {}
        numbers = np.asarray(rows, np.int64)
        for file_index in np.unique(self.row_files[numbers]):
            path = self.files[file_index]
            source = self.sources[self.file_sources[file_index]]
            with path.open("rb") as stream:
                for row in np.sort(numbers[self.row_files[numbers] == file_index]):
                    stream.seek(self.offsets[row])
                    line = stream.readline()
                    example = parse_example(line, path, int(self.lines[row]))
                    if zlib.crc32(example.query.encode()) != self.query_hashes[row]:
                        raise InvalidExamples(
                            f"{self.where(int(row))}: is not what it was when the run began. Leave "
                            "data alone while it is trained on; start again."
                        )
                    examples[int(row)] = _replaced(example, source)
        return [examples[int(row)] for row in numbers]


class _Index:
    """Grows while files are read."""

    def __init__(self) -> None:
        self.row_files, self.offsets, self.lines = array("q"), array("q"), array("q")
        self.query_hashes, self.positive_hashes = array("I"), array("I")
        self.positive_starts = array("q", [0])
        self.group_numbers = array("q")
        self.groups: dict[tuple[int, str, str], int] = {}
        self.instructions: dict[str, None] = {}
        self.problems: list[str] = []
        self.digest = 0

    def add_file(self, path: Path, number: int, source_number: int, source: DataFile) -> None:
        offset = 0
        with path.open("rb") as stream:
            for line_number, line in enumerate(stream, 1):
                start, offset = offset, offset + len(line)
                if line.isspace():
                    continue
                self.digest = zlib.crc32(line, self.digest)
                try:
                    example = _replaced(parse_example(line, path, line_number), source)
                except InvalidExamples as error:
                    self.problems.append(error.message)
                    if len(self.problems) >= MAX_PROBLEMS:
                        return
                    continue
                self.row_files.append(number)
                self.offsets.append(start)
                self.lines.append(line_number)
                self._add(example, source_number)

    def _add(self, example: Example, source_number: int) -> None:
        self.query_hashes.append(zlib.crc32(example.query.encode()))
        self.positive_hashes.extend(zlib.crc32(each.encode()) for each in example.positives)
        self.positive_starts.append(len(self.positive_hashes))
        if example.instruction is not None and len(self.instructions) < _KEPT_INSTRUCTIONS:
            self.instructions[example.instruction] = None
        group = (source_number, example.task, example.language)
        self.group_numbers.append(self.groups.setdefault(group, len(self.groups)))


def data_files(sources: Sequence[DataFile]) -> tuple[tuple[Path, int], ...]:
    """Find the files of every entry, with the entry's number.

    Raises:
        InvalidRequest: An entry names no file.
    """
    found: list[tuple[Path, int]] = []
    for number, source in enumerate(sources):
        paths = sorted(path for path in glob.glob(source.path) if Path(path).is_file())
        if not paths:
            raise InvalidRequest(
                f"data[{number}].path is {source.path}: no such file (looked at "
                f"{Path(source.path).absolute()}). Check the spelling.",
                field=f"data[{number}].path",
            )
        found.extend((Path(path), number) for path in paths)
    return tuple(found)


def index_corpus(sources: Sequence[DataFile]) -> Corpus:
    """Check and index all files.

    Raises:
        InvalidExamples: The first problems of all files.
        InvalidRequest: A file is not there, or there is no example at all.
    """
    index = _Index()
    files = data_files(sources)
    for number, (path, source_number) in enumerate(files):
        index.add_file(path, number, source_number, sources[source_number])
        if len(index.problems) >= MAX_PROBLEMS:
            index.problems.append(f"These are the first {MAX_PROBLEMS} problems. Mend them first.")
            break
    if index.problems:
        raise InvalidExamples("\n".join(index.problems))
    if not index.offsets:
        names = ", ".join(str(path) for path, _ in files)
        raise InvalidExamples(f"data: {names}: no example in it. Name files that hold some.")
    numbers = np.array(index.group_numbers, np.int64)
    return Corpus(
        sources=tuple(sources),
        files=tuple(path for path, _ in files),
        file_sources=tuple(source for _, source in files),
        row_files=np.array(index.row_files, np.int64),
        offsets=np.array(index.offsets, np.int64),
        lines=np.array(index.lines, np.int64),
        query_hashes=np.array(index.query_hashes, np.uint32),
        positive_hashes=np.array(index.positive_hashes, np.uint32),
        positive_starts=np.array(index.positive_starts, np.int64),
        groups=_groups(index, numbers, sources),
        instructions=tuple(index.instructions),
        digest=f"{len(numbers)}-{index.digest:08x}",
    )


def _groups(index: _Index, numbers: Int64Array, sources: Sequence[DataFile]) -> tuple[Group, ...]:
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(len(index.groups) + 1))
    return tuple(
        Group(source, task, language, order[bounds[i] : bounds[i + 1]], sources[source].weight)
        for i, (source, task, language) in enumerate(index.groups)
    )


def _replaced(example: Example, source: DataFile) -> Example:
    if source.task is None and source.language is None and source.instruction is None:
        return example
    return replace(
        example,
        task=source.task or example.task,
        language=source.language or example.language,
        instruction=example.instruction or source.instruction,
    )
