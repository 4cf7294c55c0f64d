"""Passages from a file, each with what names it: the digest of its text.

A passage keeps its name when lines are added before it or moved, so that answers about it are
found again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.synthesis.settings import PassageSettings

__all__ = ["Passage", "Passages", "read_passages"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, slots=True)
class Passage:
    """One text that queries are written for.

    Attributes:
        name: First 16 hex digits of the SHA-256 of its text.
        language: Code such as `en`.
    """

    name: str
    text: str
    language: str

    @property
    def num_words(self) -> int:
        """Words, or six characters each where a script has no blanks."""
        return max(len(self.text.split()), len(self.text) // 6)


@dataclass(frozen=True, slots=True)
class Passages:
    """What a file holds.

    Attributes:
        used: Each text once, in the order of the file.
        skipped: How many lines were left out, by reason.
    """

    used: tuple[Passage, ...]
    skipped: Counter[str]


def read_passages(settings: PassageSettings) -> Passages:
    """Read every passage; too short, too long and repeated ones are counted instead.

    Raises:
        InvalidRequest: A line is not what the settings say; names file, line and field.
        OSError: The file cannot be read.
    """
    used: dict[str, Passage] = {}
    skipped: Counter[str] = Counter()
    for text, language in _texts(settings):
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        if not text:
            skipped["empty"] += 1
        elif len(text) < settings.min_characters:
            skipped["too-short"] += 1
        elif len(text) > settings.max_characters:
            skipped["too-long"] += 1
        elif name in used:
            skipped["repeated"] += 1
        else:
            used[name] = Passage(name, text, language)
    if not used:
        counted = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
        raise InvalidRequest(
            f"passages.file is {settings.file}, which has no passage of "
            f"{settings.min_characters} to {settings.max_characters} characters"
            + (f" ({counted})" if counted else "")
            + ". Name another file, or change passages.minCharacters or maxCharacters.",
            field="passages.file",
        )
    return Passages(tuple(used.values()), skipped)


def _texts(settings: PassageSettings) -> Iterator[tuple[str, str]]:
    """Yield text and language of each line."""
    path = Path(settings.file).expanduser()
    is_json = path.suffix == ".jsonl"
    if settings.language_field and not is_json:
        raise InvalidRequest(
            f"passages.languageField is {settings.language_field}, but {path} is not named .jsonl: "
            "its lines have no fields. Leave it out, or give JSON Lines.",
            field="passages.languageField",
        )
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                text = line.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").decode().strip()
            except UnicodeDecodeError as error:
                raise InvalidRequest(
                    f"{where} is not UTF-8 at byte {error.start}. Save it as UTF-8."
                ) from error
            if text and is_json:
                yield _fields(text, where, settings)
            else:
                yield text, settings.language


def _fields(line: str, where: str, settings: PassageSettings) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not JSON: {error}. Mend the line.") from error
    text = _string(record, settings.field, where, "passages.field").strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{where}, field {settings.field!r} has half a surrogate pair at character "
            f"{error.start}, which is no text. Mend the line."
        ) from error
    if settings.language_field is None:
        return text, settings.language
    language = _string(record, settings.language_field, where, "passages.languageField")
    if not _LANGUAGE.fullmatch(language):
        raise InvalidRequest(
            f"{where}, field {settings.language_field!r} is {language!r}: it must be a language "
            "code such as en, de or zh-Hant. Correct it."
        )
    return text, language


def _string(record: Any, field: str, where: str, setting: str) -> str:
    value = record.get(field) if isinstance(record, dict) else None
    if isinstance(value, str):
        return value
    found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
    raise InvalidRequest(
        f"{where} has no text in field {field!r}; it has: {found or 'nothing'}. Name another one "
        f"with {setting}."
    )
