"""Lines of JSON into examples to learn from, one at a time, each mistake told by line and field.

A file is read as a stream, so that its size does not matter. Who wants to know everything that is
wrong with a file asks for a check, which goes on after a bad line. Knows no model and no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn

from embedfleet.errors import InvalidExamples
from embedfleet.tokenization.tokenized import excess, is_unicode

__all__ = [
    "MAX_PROBLEMS",
    "Example",
    "check_examples",
    "example_line",
    "parse_example",
    "read_examples",
]

MAX_PROBLEMS: Final = 20
"""Problems of one check: more of the same kind help nobody."""

_MAX_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Example:
    """A query with texts that answer it and texts that do not.

    Attributes:
        positives: At least one.
        negatives: Texts that look like answers and are none.
        instruction: What the query is told to look for. None means the default instruction.
        task: What kind of data it is: one batch has one task.
        language: Of the texts: one batch has one language.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    instruction: str | None = None
    task: str = "retrieval"
    language: str = "en"


_FIELDS: Final = tuple(each.name for each in fields(Example))
_LISTS: Final = frozenset({"positives", "negatives"})


class _Flaw(Exception):
    """What is wrong with one line: where in it, what is allowed, what to do."""


def read_examples(path: Path) -> Iterator[Example]:
    """Read the examples of a JSON Lines file one by one; blank lines are passed over.

    Raises:
        InvalidExamples: A line that is none, by file, line, field and value.
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                yield parse_example(line, path, number)


def check_examples(path: Path, limit: int = MAX_PROBLEMS) -> tuple[str, ...]:
    """Read a whole file and tell its first problems, one line each; empty if there are none.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return tuple(islice(_problems(path, stream), limit))


def parse_example(line: bytes, path: Path, number: int) -> Example:
    """Turn one line into an example.

    Args:
        line: UTF-8, with or without its line end.
        path: Where it is from, for the message.
        number: Which line it is, from 1.

    Raises:
        InvalidExamples: It is not an example.
    """
    try:
        return _example(_record(line, number))
    except _Flaw as flaw:
        raise InvalidExamples(f"{path}, line {number}: {flaw}") from flaw


def example_line(example: Example) -> str:
    """Write an example as the line that reads back as it, without the line's end."""
    record: dict[str, object] = {"query": example.query, "positives": example.positives}
    for name in _FIELDS[2:]:
        value = getattr(example, name)
        if value != Example.__dataclass_fields__[name].default:
            record[name] = value
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _problems(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            parse_example(line, path, number)
        except InvalidExamples as error:
            yield error.message


def _record(line: bytes, number: int) -> Mapping[str, Any]:
    """Read the JSON object of a line, strictly: no name twice, nothing but UTF-8."""
    if number == 1 and line.startswith(b"\xef\xbb\xbf"):
        raise _Flaw("starts with a byte order mark; UTF-8 needs none. Save it without.")
    try:
        record = json.loads(line.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _Flaw(
            f"byte {error.start + 1} is {line[error.start]:#04x}, which is not UTF-8. Save the "
            "file as UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _Flaw(
            f"is not JSON: {error}. Write one object a line, like "
            '{"query": "...", "positives": ["..."]}.'
        ) from error
    if not isinstance(record, dict):
        raise _Flaw(
            f"is {_kind(record)}, and an example is an object. Write it like "
            '{"query": "...", "positives": ["..."]}.'
        )
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Flaw(f"{twice} is there twice. Keep one of the two.")
    return record


def _example(record: Mapping[str, Any]) -> Example:
    for name in record:
        if name not in _FIELDS:
            near = get_close_matches(name.lower(), _FIELDS, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(_FIELDS)}."
            raise _Flaw(f"{_shown(name)} is not a field of an example. {remedy}")
    for name in ("query", "positives"):
        if name not in record:
            raise _Flaw(f"{name} is missing; every example has a query and positives. Add it.")
    values: dict[str, Any] = {"query": _text("query", record["query"])}
    for name in _LISTS:
        if record.get(name) is not None or name == "positives":
            values[name] = _texts(name, record[name])
    for name in ("instruction", "task", "language"):
        if record.get(name) is not None:
            values[name] = _text(name, record[name])
    if not values["positives"]:
        raise _Flaw("positives is empty; at least one is needed. Add one, or drop the line.")
    return Example(**values)


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        remedy = "Put it in [ ]." if isinstance(value, str) else 'Write it as ["...", "..."].'
        raise _Flaw(f"{name} is {_kind(value)}; it must be a list of texts. {remedy}")
    return tuple(_text(f"{name}[{index}]", each) for index, each in enumerate(value))


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        _refuse_kind(field, value)
    if not value or value.isspace():
        what = "the entry" if "[" in field else "it" if field == "instruction" else "the line"
        remedy = "Fill it in, or leave out " + what
        raise _Flaw(f"{field} is {_shown(value)}; it must hold text. {remedy}.")
    if not is_unicode(value):
        raise _Flaw(
            f"{field} is {_shown(value)}; it holds half of a surrogate pair, which no UTF-8 can "
            "carry. Write the whole character."
        )
    if (too_long := excess(field, value)) is not None:
        raise _Flaw(too_long.message)
    return value


def _refuse_kind(field: str, value: object) -> NoReturn:
    raise _Flaw(f"{field} is {_kind(value)}; it must be text. Put it in quotes.")


def _kind(value: object) -> str:
    """Name a value's kind as JSON does, and show it."""
    if value is None:
        return "null"
    kinds: Sequence[tuple[type, str]] = (
        (bool, ""),
        (int, "the number "),
        (float, "the number "),
        (str, "the text "),
        (list, "the list "),
    )
    name = next((name for kind, name in kinds if isinstance(value, kind)), "the object ")
    return name + _shown(value)


def _shown(value: object) -> str:
    # ASCII, so that half a surrogate pair can be shown at all.
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
