"""Some queries put as questions, because people ask where documents tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from embedfleet.durable import replacing

__all__ = ["as_question", "ask_some"]

_ONE_IN: Final = 3
"""Queries of which one becomes a question."""

_FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "packages": ("What is {}?", "Which program is {}?", "Where do I find {}?"),
    "manuals": ("How do I {}?", "How can I {}?", "Which command can {}?"),
    "docstrings": ("How do I {}?", "How can I {}?", "Which function can {}?"),
    "words": ("What is {}?", "What does {} mean?", "Which words describe {}?"),
}


def as_question(query: str, task: str) -> str:
    """Put a query as a question, if its digest says so; the same query always the same way."""
    digest = hashlib.sha256(f"{task}/{query}".encode()).digest()
    if digest[0] % _ONE_IN:
        return query
    form = _FORMS[task][digest[1] % len(_FORMS[task])]
    first, rest = query[:1], query[1:].rstrip(" .?!")
    # A word of capitals, such as GNU, stays what it is.
    return form.format((first if rest[:1].isupper() else first.lower()) + rest)


def ask_some(source: Path, target: Path) -> None:
    """Copy a file of examples, some of its queries put as questions."""
    examples = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    with replacing(target) as out:
        for example in examples:
            example["query"] = as_question(example["query"], example["task"])
            out.write(json.dumps(example, ensure_ascii=False) + "\n")
