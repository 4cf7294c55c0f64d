"""Hard negatives for examples, found with the engine that serves.

Queries and documents are embedded once, compared by blocks, and what passes the filters becomes
negatives. A reranker may have the last word. The result is written as a whole at the end; whether
it can be is found out before the work begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from embedfleet.durable import partial_name, replacing
from embedfleet.errors import InvalidExamples, InvalidRequest
from embedfleet.tuning.collection import collect
from embedfleet.tuning.examples import Example, example_line, read_examples
from embedfleet.tuning.negatives import MiningSettings
from embedfleet.tuning.searching import MiningModels, Progress, choose, search

__all__ = ["MiningFiles", "MiningReport", "mine"]


@dataclass(frozen=True, slots=True)
class MiningFiles:
    """What is read and written.

    Attributes:
        data: Examples, JSON Lines.
        output: The same examples with what was mined behind the negatives they have.
        corpus: Documents, JSON Lines of `text`; None takes the positives of the data.
    """

    data: Path
    output: Path
    corpus: Path | None = None


@dataclass(frozen=True, slots=True)
class MiningReport:
    """What was found, and what was left out and why.

    Attributes:
        num_queries: Different ones, by text and instruction.
        num_duplicates: Documents that were there already.
        num_empty: Entries of the corpus without text.
        num_mined: Negatives found, over queries.
        num_short: Queries with fewer than were asked for.
        too_near_positive: Documents above a positive's similarity less the margin.
        too_similar: Other documents above the highest similarity.
        too_relevant: Documents that the reranker took for answers.
    """

    num_examples: int
    num_queries: int
    num_candidates: int
    num_duplicates: int
    num_empty: int
    num_mined: int
    num_short: int
    too_near_positive: int
    too_similar: int
    too_relevant: int


def mine(
    files: MiningFiles,
    models: MiningModels,
    settings: MiningSettings | None = None,
    progress: Progress = lambda what, total: nullcontext(lambda done: None),
) -> MiningReport:
    """Write examples with hard negatives.

    Raises:
        InvalidExamples: A line of the data or of the corpus is malformed, or there is none.
        InvalidRequest: The output cannot be written, or an option is out of its range.
        CheckpointError: A model's files are not what they should be.
        OSError: A file cannot be read.
    """
    settings = settings or MiningSettings()
    _check(files)
    with _output(files.output) as target:
        examples = list(read_examples(files.data))
        collection = collect(examples, files.corpus)
        for what, count in (("data", len(examples)), ("corpus", collection.num_candidates)):
            if not count:
                raise InvalidExamples(f"{what} {getattr(files, what)} is empty. Name another file.")
        passed = search(collection, models, settings, progress)
        chosen, too_relevant = choose(collection, passed, (models, settings), progress)
        _write(target, examples, [chosen[number] for number in collection.query_of])
    return MiningReport(
        num_examples=len(examples),
        num_queries=len(collection.queries),
        num_candidates=collection.num_candidates,
        num_duplicates=collection.num_duplicates,
        num_empty=collection.num_empty,
        num_mined=sum(map(len, chosen)),
        num_short=sum(len(each) < settings.negatives for each in chosen),
        too_near_positive=sum(each.too_near_positive for each in passed),
        too_similar=sum(each.too_similar for each in passed),
        too_relevant=too_relevant,
    )


def _check(files: MiningFiles) -> None:
    for name, path in (("data", files.data), ("corpus", files.corpus)):
        if path is not None and files.output.absolute() == path.absolute():
            raise InvalidRequest(
                f"output {files.output} is the {name} that is read. Name another file.",
                field="output",
            )


def _write(target: TextIO, examples: Iterable[Example], mined: Iterable[list[str]]) -> None:
    for example, negatives in zip(examples, mined, strict=True):
        more = replace(example, negatives=(*example.negatives, *negatives))
        target.write(example_line(more) + "\n")


@contextmanager
def _output(path: Path) -> Iterator[TextIO]:
    """Give a file that takes a path's place once it is whole."""
    try:
        with replacing(path) as target:
            yield target
    except OSError as error:
        if error.filename not in (None, str(partial_name(path))):
            raise  # of a file that is read
        raise InvalidRequest(
            f"output {path} cannot be written: {error.strerror}. Name another file, or make room.",
            field="output",
        ) from error
