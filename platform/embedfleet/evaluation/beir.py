"""Retrieval data in folders laid out as BEIR's (arXiv 2104.08663), checked line by line.

    corpus.jsonl     {"_id": "d1", "title": "may be absent", "text": "..."}
    queries.jsonl    {"_id": "q1", "text": "..."}
    qrels/test.tsv   query-id, corpus-id, score, with that header

A document's text is its title, a space, its text; where there is no title, its text alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedfleet.errors import InvalidRequest
from embedfleet.evaluation.lines import Line, json_lines, tab_lines

__all__ = ["RetrievalDataset", "read_dataset"]

_SAMPLE_SEED = 0
_HEADER = "query-id\tcorpus-id\tscore"


@dataclass(frozen=True, slots=True)
class RetrievalDataset:
    """What is searched, what is asked, and what is right.

    Attributes:
        name: The folder's.
        documents: Those with text, in the order of the file.
        queries: Those with at least one relevant document, in the order of the file.
        relevance: By query id, then document id: 0 is not relevant, more is better.
        num_without_text: Documents left out because they have neither title nor text.
        num_without_relevant: Judged queries left out because nothing is relevant to them.
    """

    name: str
    split: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    relevance: Mapping[str, Mapping[str, int]]
    num_without_text: int = 0
    num_without_relevant: int = 0

    def own_documents(self) -> list[int]:
        """Give each query's own document, -1 for none.

        Where queries are documents of the corpus (same id, same text), finding itself says nothing.
        """
        places = {each: place for place, each in enumerate(self.document_ids)}
        found = (places.get(each, -1) for each in self.query_ids)
        return [
            place if place >= 0 and self.documents[place] == query else -1
            for place, query in zip(found, self.queries, strict=True)
        ]


def read_dataset(
    folder: Path, split: str = "test", max_queries: int | None = None
) -> RetrievalDataset:
    """Read a folder.

    Args:
        folder: Holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv.
        split: Which judgements.
        max_queries: If there are more, a sample of so many, the same in every run.

    Raises:
        InvalidRequest: A file is missing, or a line is not what it should be; file, line and field
            are named.
    """
    documents = _texts(folder / "corpus.jsonl", titled=True)
    queries = _texts(folder / "queries.jsonl", titled=False)
    judgements = _qrels(folder, split)
    relevance = _joined(judgements, documents, queries)
    asked = _asked(queries, relevance, max_queries)
    if not asked:
        raise InvalidRequest(
            f"{judgements[0].file} holds no query with a relevant document (score above 0), so "
            "nothing can be measured. Choose another split.",
            field="data",
        )
    filled = {each: text for each, text in documents.items() if text}
    if not filled:
        raise InvalidRequest(
            f"{folder / 'corpus.jsonl'} holds no document with text. Check the field `text`.",
            field="data",
        )
    return RetrievalDataset(
        name=folder.resolve().name,
        split=split,
        document_ids=tuple(filled),
        documents=tuple(filled.values()),
        query_ids=tuple(asked),
        queries=tuple(queries[each] for each in asked),
        relevance={each: relevance[each] for each in asked},
        num_without_text=len(documents) - len(filled),
        num_without_relevant=sum(max(each.values()) <= 0 for each in relevance.values()),
    )


def _asked(
    queries: Mapping[str, str],
    relevance: Mapping[str, Mapping[str, int]],
    max_queries: int | None,
) -> list[str]:
    """Choose the queries to which something is relevant, or a sample of them, in order."""
    asked = [each for each in queries if max(relevance.get(each, {"": 0}).values()) > 0]
    if max_queries is None or len(asked) <= max_queries:
        return asked
    drawn = np.random.default_rng(_SAMPLE_SEED).permutation(len(asked))[:max_queries]
    return [asked[place] for place in sorted(drawn)]


def _texts(file: Path, titled: bool) -> dict[str, str]:
    """Read texts by id; only documents may have a title, and only they may be empty."""
    texts: dict[str, str] = {}
    for line in json_lines(file):
        name = line.text("_id")
        if not name:
            raise line.error("_id", "is empty", "Give every line an id of its own")
        if name in texts:
            raise line.error("_id", f"is {name!r}, as in a line before", "Ids must differ")
        text = line.text("text").strip()
        if titled:
            text = f"{line.text('title', absent='')} {text}".strip()
        elif not text:
            raise line.error("text", "is empty", "A query needs text")
        texts[name] = text
    if not texts:
        raise InvalidRequest(f"{file} is empty. It must hold one JSON object a line.", field="data")
    return texts


def _qrels(folder: Path, split: str) -> list[Line]:
    file = folder / "qrels" / f"{split}.tsv"
    if not file.is_file():
        splits = sorted(each.stem for each in (folder / "qrels").glob("*.tsv"))
        there = f"there are {', '.join(splits)}" if splits else "there is none"
        raise InvalidRequest(
            f"{file} is not there: split is {split}, and of {folder / 'qrels'}/*.tsv {there}. "
            "Choose one with --split.",
            field="split",
        )
    lines = list(tab_lines(file))
    if not lines or len(lines[0].fields) != 3 or _is_number(lines[0].fields["2"]):
        found = "\t".join(lines[0].fields.values()) if lines else ""
        raise InvalidRequest(
            f"{file}, line 1 is {found[:80]!r}; it must be the header {_HEADER!r}. Add it.",
            field="data",
        )
    if len(lines) == 1:
        raise InvalidRequest(f"{file} judges no query. Choose another split.", field="data")
    return lines[1:]


def _joined(
    judgements: list[Line], documents: Mapping[str, str], queries: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Check judgements against both files; scores below 0 count as not relevant."""
    relevance: dict[str, dict[str, int]] = {}
    for line in judgements:
        if len(line.fields) != 3:
            raise line.error("columns", f"are {len(line.fields)}, not 3", f"Write {_HEADER!r}")
        query, document, score = line.fields.values()
        if query not in queries:
            raise line.error("query-id", f"is {query!r}, not in queries.jsonl", "Mend either file")
        if document not in documents:
            raise line.error(
                "corpus-id", f"is {document!r}, not in corpus.jsonl", "Mend either file"
            )
        if not _is_number(score):
            raise line.error("score", f"is {score!r}, not a whole number", "Write 0 or more")
        judged = relevance.setdefault(query, {})
        if document in judged:
            raise line.error("corpus-id", f"{document!r} is judged twice", "Keep one of the lines")
        judged[document] = max(0, int(score))
    return relevance


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()
