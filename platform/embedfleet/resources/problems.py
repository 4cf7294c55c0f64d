"""A document into a resource, or into every problem it has, each with its next move.

One look is not enough: a rule between fields is only judged once the fields themselves are sound.
So what was refused is taken out and the rest is judged again, until nothing new comes up.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from embedfleet.errors import Problem
from embedfleet.resources.base import PATTERNS, RULES, Part, Violation
from embedfleet.resources.documents import Document

__all__ = ["closest", "identity", "judge", "problem"]

_PASSES: Final = 5
_MAX_VALUE_CHARACTERS: Final = 100

R = TypeVar("R", bound=Part)
Location = tuple[int | str, ...]

_LIMITS: Final = {
    "bool_type": ("must be true or false", "Write it without quotes."),
    "dict_type": ("must be a mapping", "Write it as `key: value` lines."),
    "finite_number": ("must be finite", "Set an ordinary number."),
    "float_type": ("must be a number", "Write it without quotes."),
    "greater_than": ("must be more than {gt}", "Raise it."),
    "greater_than_equal": ("must be at least {ge}", "Raise it."),
    "int_type": ("must be a whole number", "Write it without quotes."),
    "less_than": ("must be less than {lt}", "Lower it."),
    "less_than_equal": ("must be at most {le}", "Lower it."),
    "missing": ("is required", "Set it."),
    "model_type": ("must be a mapping of fields", "Write it as `field: value` lines."),
    "string_too_long": ("must have at most {max_length} characters", "Shorten it."),
    "string_too_short": ("must not be empty", "Fill it in or leave it out."),
    "string_type": ("must be text", "Put it in quotes."),
    "too_long": ("must have at most {max_length} entries", "Remove some."),
    "too_short": ("must have at least {min_length} entries", "Add some."),
    "tuple_type": ("must be a list", "Write each entry on a line that starts with `- `."),
}
"""What is allowed and what to do, by pydantic's error type."""


def judge(kind: type[R], document: Document) -> R | tuple[Problem, ...]:
    """Give the resource that a document describes, or everything that is wrong with it."""
    content: Any = _plain(document.content)
    _drop_nulls(kind, content)
    found: list[Problem] = []
    reported: list[str] = []
    for turn in range(_PASSES):
        try:
            resource = kind.model_validate_json(json.dumps(content), by_alias=True, by_name=False)
        except ValidationError as error:
            details = [each for each in error.errors(include_url=False) if not _follows(each)]
        else:
            return tuple(found) or resource
        for detail in details:
            found.extend(_problems(kind, document, detail, reported if turn else None))
        reported = [each.path for each in found]
        for detail in details:
            _take_out(content, detail["loc"])
    return tuple(found)


def problem(document: Document, violation: Violation, *, under: str = "") -> Problem:
    """Say where in a document a rule does not hold."""
    kind, name = identity(document.content)
    return Problem(
        file=document.file,
        document=document.number,
        kind=_written(kind),
        name=_written(name),
        path=f"{under}.{violation.path}" if under else violation.path,
        value=_written(violation.value),
        limit=violation.limit,
        remedy=violation.remedy,
    )


def identity(content: object) -> tuple[str, str]:
    """Read kind and name of a document as far as they are there."""
    if not isinstance(content, dict):
        return "", ""
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return str(content.get("kind") or ""), str(name or "")


def closest(word: str, known: Sequence[str]) -> str | None:
    """Find the known word that a user most likely meant, if any is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[near[0]] if near else None


def _plain(value: Any) -> Any:
    """Copy what JSON can hold; 5.0 is the whole number 5, as it is to Kubernetes."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _drop_nulls(kind: type[BaseModel], content: Any) -> None:
    """Take out known fields and a mapping's entries without a value: null is what is left out."""
    if not isinstance(content, dict):
        return
    for name, parts in _parts_by_field(kind):
        value = content.get(name, ...)
        if value is None:
            del content[name]
            continue
        for each in value if isinstance(value, list) else [value]:
            for part in parts:
                _drop_nulls(part, each)
        if not parts and isinstance(value, dict):
            content[name] = {key: each for key, each in value.items() if each is not None}


@cache
def _parts_by_field(kind: type[BaseModel]) -> tuple[tuple[str, tuple[type[Part], ...]], ...]:
    fields = kind.model_fields.values()
    return tuple((field.alias or "", tuple(_parts(field.annotation))) for field in fields)


def _follows(detail: ErrorDetails) -> bool:
    """Tell a list that is too short from one whose entries were refused before it was counted."""
    if detail["type"] != "too_short":
        return False
    return bool(len(detail["input"]) >= detail["ctx"]["min_length"])


def _problems(
    kind: type[BaseModel], document: Document, detail: ErrorDetails, reported: list[str] | None
) -> Iterator[Problem]:
    """Turn one error into problems; with `reported`, only rules that rest on nothing reported."""
    path = _path(detail["loc"])
    if detail["type"] != RULES:
        if reported is None:
            yield problem(document, _violation(kind, detail, path))
        return
    # A rule of the whole document names its fields by themselves.
    under = path if detail["loc"] else ""
    for violation in detail["ctx"]["violations"]:
        touched = [f"{under}.{each}".lstrip(".") for each in (violation.path, *violation.reads)]
        if reported and any(_overlap(a, b) for a in touched for b in reported):
            continue
        yield problem(document, violation, under=under)


def _violation(kind: type[BaseModel], detail: ErrorDetails, path: str) -> Violation:
    error, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if error == "extra_forbidden":
        name = str(detail["loc"][-1])
        known = _fields(kind, detail["loc"][:-1])
        near = closest(name, known)
        remedy = f"Did you mean {near}?" if near else f"Known: {', '.join(known)}."
        return Violation(path, value, "is not a field here", remedy)
    if error == "string_pattern_mismatch":
        remedy = "Rename it." if detail["loc"][-1] == "name" else "Correct it."
        return Violation(path, value, PATTERNS[context["pattern"]], remedy)
    if error in ("enum", "literal_error"):
        return _choice(path, value, context["expected"])
    limit, remedy = _LIMITS.get(error, (detail["msg"], "Correct it."))
    if error in ("int_type", "float_type", "bool_type") and not isinstance(value, str):
        remedy = "Round it." if isinstance(value, float) else "Set a number."
        remedy = "Set true or false." if error == "bool_type" else remedy
    if error == "missing":
        value = ""
    elif error.endswith("_type"):
        value = json.dumps(value, ensure_ascii=False)  # quotes are what is at stake
    bounds = {k: int(v) if isinstance(v, float) and v == int(v) else v for k, v in context.items()}
    return Violation(path, value, limit.format(**bounds), remedy)


def _choice(path: str, value: object, expected: str) -> Violation:
    choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
    limit = "must be " + ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    if value == "onnxruntime":
        return Violation(path, value, limit, "This release has no onnxruntime yet: use torch.")
    near = closest(str(value), choices)
    return Violation(path, value, limit, f"Did you mean {near}?" if near else "Choose one.")


def _fields(kind: type[BaseModel], location: Location) -> list[str]:
    """List the fields of the model at a location, as manifests spell them."""
    model = kind
    for step in location:
        if isinstance(step, str):
            by_alias = {f.alias: f for f in model.model_fields.values()}
            model = next(_parts(by_alias[step].annotation))
    return [f.alias or "" for f in model.model_fields.values()]


def _parts(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _path(location: Location) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "document"


def _overlap(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    return long.startswith(short) and (len(long) == len(short) or long[len(short)] in ".[")


def _take_out(content: Any, location: Location) -> None:
    """Remove what was refused. A list goes as a whole: its entries must keep their numbers."""
    while location and (isinstance(location[-1], int) or location[-1] == "[key]"):
        location = location[:-1]
    for step in location[:-1]:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return
    if location and isinstance(content, dict):
        content.pop(location[-1], None)


def _written(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if len(text) > _MAX_VALUE_CHARACTERS:
        text = text[:_MAX_VALUE_CHARACTERS] + f"... ({len(text)} characters)"
    return text
