"""Lines of JSON and of tab-separated values, which know where they stand when one is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import InvalidRequest

__all__ = ["Line", "json_lines", "tab_lines"]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file.

    Attributes:
        number: From 1.
        fields: By name; of tab-separated values by position, from "0".
    """

    file: Path
    number: int
    fields: Mapping[str, Any]

    def text(self, field: str, absent: str | None = None) -> str:
        """Return a field that must be text.

        Args:
            field: Its name.
            absent: Taken where the field is missing or null; None refuses that.

        Raises:
            InvalidRequest: It is not text.
        """
        value = self.fields.get(field)
        if value is None and absent is not None:
            return absent
        if not isinstance(value, str):
            found = "is missing" if value is None else f"is {json.dumps(value)[:60]}, not text"
            raise self.error(field, found, "Write it as a JSON string")
        if _SURROGATE.search(value):
            raise self.error(field, "holds half of a surrogate pair", "Write valid Unicode")
        return value

    def error(self, field: str, found: str, remedy: str) -> InvalidRequest:
        """Give the error that names file, line and field."""
        return InvalidRequest(
            f"{self.file}, line {self.number}: {field} {found}. {remedy}.", field=field
        )


def json_lines(file: Path) -> Iterator[Line]:
    """Read JSON objects, one a line; blank lines are skipped.

    Raises:
        InvalidRequest: The file cannot be read, or a line is not an object.
    """
    for number, text in _lines(file):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"{file}, line {number} is not JSON: {error}. Mend the line.", field="data"
            ) from error
        if not isinstance(record, dict):
            raise InvalidRequest(
                f"{file}, line {number} is a JSON {type(record).__name__}, not an object. Mend the "
                "line.",
                field="data",
            )
        yield Line(file, number, record)


def tab_lines(file: Path) -> Iterator[Line]:
    """Read tab-separated values as they are, without quoting; blank lines are skipped.

    Raises:
        InvalidRequest: The file cannot be read.
    """
    for number, text in _lines(file):
        yield Line(file, number, {str(at): cell for at, cell in enumerate(text.split("\t"))})


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open("rb") as handle:
            for number, data in enumerate(handle, 1):
                text = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{file} is not UTF-8: {error.reason}. Save it as UTF-8.", field="data"
        ) from error
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be read: {error.strerror}. Data is a folder with corpus.jsonl, "
            "queries.jsonl and qrels/SPLIT.tsv, or a file of pairs.",
            field="data",
        ) from error
