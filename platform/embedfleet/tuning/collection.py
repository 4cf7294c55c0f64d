"""What is asked and what is searched when negatives are mined: each text once.

The same text, twice in a corpus or on many lines of the data, is one document. The same query on
several lines has the positives of all of them: an answer of one line is no negative of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.errors import InvalidExamples
from embedfleet.tokenization.tokenized import excess, is_unicode
from embedfleet.tuning.examples import Example
from embedfleet.tuning.identity import text_key

__all__ = ["Collection", "Query", "collect", "read_corpus"]

_MAX_SHOWN: Final = 60


@dataclass(slots=True)
class Query:
    """A query under one instruction.

    Attributes:
        positives: Places of its positives, of all lines that ask it.
        excluded: Places that are no negatives: positives, negatives it has, the query itself.
    """

    text: str
    instruction: str
    positives: set[int] = field(default_factory=set)
    excluded: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Collection:
    """Everything that is embedded.

    Attributes:
        documents: Candidates first, then positives that are none.
        num_candidates: How many may become negatives.
        num_duplicates: Texts that were there already.
        num_empty: Entries of the corpus without text.
        queries: In the order of their first line.
        query_of: For each example, its query's place.
    """

    documents: Sequence[str]
    num_candidates: int
    num_duplicates: int
    num_empty: int
    queries: Sequence[Query]
    query_of: Sequence[int]


def collect(examples: Sequence[Example], corpus: Path | None) -> Collection:
    """Gather the texts of examples and of a corpus.

    Args:
        examples: What negatives are mined for.
        corpus: JSON Lines of documents; None takes the positives of the examples.

    Raises:
        InvalidExamples: A line of the corpus is no document.
        OSError: The corpus cannot be read.
    """
    places: dict[str, int] = {}
    documents: list[str] = []
    seen = empty = 0

    def add(text: str) -> int:
        place = places.setdefault(text_key(text), len(documents))
        if place == len(documents):
            documents.append(text)
        return place

    if corpus is not None:
        for text in read_corpus(corpus):
            if text:
                seen += 1
                add(text)
            else:
                empty += 1
        num_candidates = len(documents)
    of_examples = [[add(text) for text in example.positives] for example in examples]
    if corpus is None:
        num_candidates, seen = len(documents), sum(map(len, of_examples))
    queries, query_of = _queries(examples, of_examples, places)
    duplicates = seen - num_candidates
    return Collection(documents, num_candidates, duplicates, empty, queries, query_of)


def read_corpus(path: Path) -> Iterator[str]:
    """Read documents from JSON Lines with `text` and, as in BEIR's, an optional `title`.

    Yields:
        Title, a space and text, or what there is of the two; empty if there is neither.

    Raises:
        InvalidExamples: A line is no document, by file, line, field and value.
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.isspace():
                continue
            flaw, text = _document(line, number)
            if flaw:
                raise InvalidExamples(f"{path}, line {number}: {flaw}")
            yield text


def _queries(
    examples: Sequence[Example], of_examples: Sequence[Sequence[int]], places: dict[str, int]
) -> tuple[list[Query], list[int]]:
    numbers: dict[tuple[str, str], int] = {}
    queries: list[Query] = []
    query_of: list[int] = []
    for example, positives in zip(examples, of_examples, strict=True):
        instruction = example.instruction or DEFAULT_INSTRUCTION
        key = text_key(example.query)
        number = numbers.setdefault((key, instruction), len(queries))
        if number == len(queries):
            queries.append(Query(example.query, instruction))
        query = queries[number]
        query.positives.update(positives)
        known = (places.get(each) for each in (key, *map(text_key, example.negatives)))
        query.excluded.update(positives, (place for place in known if place is not None))
        query_of.append(number)
    return queries, query_of


def _document(line: bytes, number: int) -> tuple[str, str]:
    """Return what is wrong with a line, and its text if nothing is."""
    try:
        record: Any = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        return f"is not JSON in UTF-8 ({error}). Mend the line.", ""
    if not isinstance(record, dict):
        return 'is not an object. Write it like {"text": "..."}.', ""
    if "text" not in record:
        named = ", ".join(list(record)[:8]) or "none"
        return f"text is missing; fields are {named}. Name the text's field text.", ""
    parts = []
    for name in ("title", "text"):
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            return f"{name} is {json.dumps(value)[:_MAX_SHOWN]}, not text. Put it in quotes.", ""
        parts.append((value or "").strip())
    text = " ".join(part for part in parts if part)
    if not is_unicode(text):
        return "text holds half of a surrogate pair. Write the whole character.", ""
    too_long = excess("text", text)
    return ("", text) if too_long is None else (too_long.message, "")
