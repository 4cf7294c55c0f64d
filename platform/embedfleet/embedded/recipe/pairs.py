"""Pairs of a query and the document that answers it, and how they are split and written.

What is held out is decided by a digest of the group's name: a group (a source package, a manual, a
Python distribution) is in training as a whole or not at all, whichever machine gathers it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "MAX_DOCUMENT_CHARACTERS",
    "Pair",
    "cut",
    "held_out",
    "one_of_each",
    "unique",
    "write_beir",
    "write_train",
]

MAX_DOCUMENT_CHARACTERS: Final = 600
"""Documents are cut here for everybody, the lexical baseline included."""

MIN_QUERY_WORDS: Final = 3
MIN_DOCUMENT_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, the document that answers it, and where both come from.

    Attributes:
        group: What is held out as a whole, such as a source package.
    """

    group: str
    query: str
    document: str


def cut(text: str, limit: int = MAX_DOCUMENT_CHARACTERS) -> str:
    """Shorten a text between two words."""
    text = text.strip()
    if len(text) <= limit:
        return text
    return re.sub(r"\s+\S*$", "", text[: limit + 1]).rstrip()


def unique(pairs: Iterable[Pair], *, short: bool = False) -> list[Pair]:
    """Drop every query and document that came before and, unless `short`, what says too little."""
    kept, queries, documents = [], set[str](), set[str]()
    for pair in pairs:
        query, document = _key(pair.query), _key(pair.document)
        too_short = len(query.split()) < MIN_QUERY_WORDS or len(document) < MIN_DOCUMENT_CHARACTERS
        if not query or not document or (too_short and not short):
            continue
        if query in queries or document in documents:
            continue
        queries.add(query)
        documents.add(document)
        kept.append(pair)
    return kept


def one_of_each(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep the first pair of every group, where others of the group say nearly the same."""
    kept: dict[str, Pair] = {}
    for pair in pairs:
        kept.setdefault(pair.group, pair)
    return list(kept.values())


def held_out(source: str, group: str, share: float) -> bool:
    """Whether a group is kept away from training: about `share` of all groups are."""
    digest = hashlib.sha256(f"{source}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def write_train(file: Path, pairs: Sequence[Pair], task: str) -> None:
    """Write training examples, one JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        {
            "query": pair.query,
            "positives": [pair.document],
            "task": task,
        }
        for pair in pairs
    )
    _write_lines(file, lines)


def write_beir(folder: Path, pairs: Sequence[Pair], num_queries: int) -> None:
    """Write a BEIR folder: every document, and the queries of a part of them, spread evenly."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents = ({"_id": f"d{i}", "title": "", "text": p.document} for i, p in enumerate(pairs))
    _write_lines(folder / "corpus.jsonl", documents)
    order = sorted(range(len(pairs)), key=lambda i: _digest(pairs[i].query))
    asked = sorted(order[:num_queries])
    _write_lines(
        folder / "queries.jsonl", ({"_id": f"q{i}", "text": pairs[i].query} for i in asked)
    )
    rows = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in asked)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")


def _write_lines(file: Path, lines: Iterable[Mapping[str, object]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(_json_lines(lines))


def _json_lines(lines: Iterable[Mapping[str, object]]) -> Iterator[str]:
    for line in lines:
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _key(text: str) -> str:
    return " ".join(text.casefold().split())
