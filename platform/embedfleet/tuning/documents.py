"""Files of settings: exactly one YAML document, and single values laid over it by their path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedfleet.errors import InvalidManifest, InvalidRequest, Problem
from embedfleet.resources.documents import Document, read_documents

__all__ = ["lay_over", "only_document"]


def only_document(path: Path) -> Document:
    """Read a file that holds one document.

    Raises:
        InvalidManifest: It is not UTF-8, not YAML, or not one document.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problem = Problem(
            str(path), 1, "", "", "file", "", f"is not UTF-8 at byte {error.start}",
            "Save it as UTF-8.",
        )  # fmt: skip
        raise InvalidManifest.of((problem,)) from error
    documents = list(read_documents(str(path), text))
    problems = tuple(each for each in documents if isinstance(each, Problem))
    found = [each for each in documents if isinstance(each, Document)]
    if not problems and len(found) != 1:
        limit = f"has {len(found)} YAML documents; one is needed"
        problems = (Problem(str(path), 1, "", "", "file", "", limit, "Put the settings into one."),)
    if problems:
        raise InvalidManifest.of(problems)
    return found[0]


def lay_over(content: Any, place: str, value: object) -> None:
    """Set one value by its path, such as `loss.temperature`; sections that lack are made.

    Raises:
        InvalidRequest: What should hold it is no section of fields.
    """
    *parents, name = place.split(".")
    if not all((*parents, name)):
        raise InvalidRequest(
            f"{place!r} names no field. Write section.field, such as schedule.steps.", field=place
        )
    for parent in parents:
        inner = content.get(parent) if isinstance(content, dict) else content
        if inner is None:
            inner = content[parent] = {}
        if not isinstance(inner, dict):
            raise InvalidRequest(
                f"{place} cannot be set: {parent} is {inner!r}, not a section of fields. Set "
                f"{place[: place.index(parent) + len(parent)]} instead.",
                field=place,
            )
        content = inner
    if not isinstance(content, dict):
        raise InvalidRequest(
            f"{place} cannot be set: the settings are {content!r}, no fields. Write the file anew.",
            field=place,
        )
    content[name] = value
