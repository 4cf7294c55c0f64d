"""Folders and files to measure on: what is read, what is left out and counted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedfleet.errors import InvalidRequest
from embedfleet.evaluation.beir import read_dataset
from embedfleet.evaluation.similarity import read_pairs

HEADER = "query-id\tcorpus-id\tscore"
CORPUS = [
    {"_id": "d1", "title": "Mills", "text": "A tidal mill."},
    {"_id": "d2", "text": "No title here."},
    {"_id": "d3", "title": "", "text": ""},
    {"_id": "d4", "title": "Only a title", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "mills"},
    {"_id": "q2", "text": "titles"},
    {"_id": "q3", "text": "x"},
]
QRELS = [HEADER, "q1\td1\t2", "q1\td2\t0", "q2\td4\t1", "q3\td2\t-1"]


def folder(at: Path, **changes: list[object]) -> Path:
    """Write a folder; a change replaces one file's lines."""
    files = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS} | changes
    (at / "qrels").mkdir(parents=True, exist_ok=True)
    for name, place in (
        ("corpus", "corpus.jsonl"), ("queries", "queries.jsonl"), ("qrels", "qrels/test.tsv"),
    ):  # fmt: skip
        lines = [line if isinstance(line, str) else json.dumps(line) for line in files[name]]
        (at / place).write_text("".join(f"{line}\n" for line in lines))
    return at


def test_texts_are_joined_as_benchmarks_join_them(tmp_path: Path) -> None:
    read = read_dataset(folder(tmp_path / "mine"))
    assert read.name == "mine"
    assert dict(zip(read.document_ids, read.documents, strict=True)) == {
        "d1": "Mills A tidal mill.", "d2": "No title here.", "d4": "Only a title",
    }  # fmt: skip
    assert read.num_without_text == 1


def test_queries_that_nothing_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    read = read_dataset(folder(tmp_path))
    assert read.query_ids == ("q1", "q2")
    assert read.queries == ("mills", "titles")
    assert read.relevance == {"q1": {"d1": 2, "d2": 0}, "q2": {"d4": 1}}
    assert read.num_without_relevant == 1


def test_a_sample_is_the_same_every_time_and_in_order(tmp_path: Path) -> None:
    queries = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(40)]
    where = folder(tmp_path, queries=queries, qrels=[HEADER, *(f"q{n}\td1\t1" for n in range(40))])
    drawn = read_dataset(where, max_queries=7).query_ids
    assert len(drawn) == 7
    assert drawn == read_dataset(where, max_queries=7).query_ids
    assert list(drawn) == sorted(drawn, key=lambda name: int(name[1:]))
    assert drawn != tuple(f"q{n}" for n in range(7))


def test_a_query_that_is_a_document_is_known_by_id_and_text(tmp_path: Path) -> None:
    corpus = [{"_id": "1", "text": "same text"}, {"_id": "2", "text": "other"}]
    queries = [{"_id": "1", "text": "same text"}, {"_id": "2", "text": "only the id is the same"}]
    qrels = [HEADER, "1\t2\t1", "2\t1\t1"]
    read = read_dataset(folder(tmp_path, corpus=corpus, queries=queries, qrels=qrels))
    assert read.own_documents() == [0, -1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": []}, "corpus.jsonl is empty"),
        ({"corpus": [CORPUS[2]], "qrels": [HEADER, "q1\td3\t1"]}, "no document with text"),
        ({"corpus": ["{"]}, "corpus.jsonl, line 1 is not JSON"),
        ({"corpus": ["[1]"]}, "corpus.jsonl, line 1 is a JSON list"),
        ({"corpus": [CORPUS[0], {"text": "x"}]}, "corpus.jsonl, line 2: _id is missing"),
        ({"corpus": [{"_id": 7, "text": "x"}]}, "line 1: _id is 7, not text"),
        ({"corpus": [{"_id": "", "text": "x"}]}, "line 1: _id is empty"),
        ({"corpus": [{"_id": "d1"}]}, "line 1: text is missing"),
        ({"corpus": [{"_id": "d1", "title": 3, "text": "x"}]}, "line 1: title is 3"),
        ({"corpus": [{"_id": "d1", "text": "\ud800"}]}, "line 1: text holds half of a surrogate"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, "line 5: _id is 'd1', as in a line before"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "queries.jsonl, line 1: text is empty"),
        ({"queries": [*QUERIES, QUERIES[1]]}, "queries.jsonl, line 4: _id is 'q2'"),
        ({"qrels": []}, "line 1 is ''; it must be the header"),
        ({"qrels": QRELS[1:]}, "line 1 is 'q1\\td1\\t2'; it must be the header"),
        ({"qrels": [HEADER]}, "judges no query"),
        ({"qrels": [HEADER, "q1\td1"]}, "test.tsv, line 2: columns are 2, not 3"),
        ({"qrels": [HEADER, "q9\td1\t1"]}, "line 2: query-id is 'q9', not in queries.jsonl"),
        ({"qrels": [HEADER, "q1\td9\t1"]}, "line 2: corpus-id is 'd9', not in corpus.jsonl"),
        ({"qrels": [HEADER, "q1\td1\thigh"]}, "line 2: score is 'high', not a whole number"),
        ({"qrels": [HEADER, "q1\td1\t1", "q1\td1\t0"]}, "line 3: corpus-id 'd1' is judged twice"),
        ({"qrels": [HEADER, "q1\td1\t0"]}, "no query with a relevant document"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)  # fmt: skip
def test_a_bad_folder_is_refused(
    tmp_path: Path, changes: dict[str, list[object]], said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_dataset(folder(tmp_path, **changes))
    assert said in str(refused.value)
    assert refused.value.field


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"corpus\.jsonl cannot be read: No such file"):
        read_dataset(tmp_path)
    with pytest.raises(InvalidRequest, match=r"split is dev, .* there are test"):
        read_dataset(folder(tmp_path), split="dev")
    (tmp_path / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        read_dataset(tmp_path)


def test_pairs_are_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    rows = [("a cat", "the cat", 4.5), ("blue", "a train", 0.0)]
    table, lines = tmp_path / "some.tsv", tmp_path / "some.jsonl"
    table.write_text("text_a\ttext_b\tscore\n" + "".join(f"{a}\t{b}\t{s}\n" for a, b, s in rows))
    lines.write_text(
        "".join(json.dumps({"text_a": a, "text_b": b, "score": s}) + "\n" for a, b, s in rows)
    )
    for file in (table, lines):
        read = read_pairs(file)
        assert read.name == "some"
        assert list(zip(read.left, read.right, read.scores.tolist(), strict=True)) == rows


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.csv", "", "neither .jsonl nor .tsv"),
        ("s.tsv", "", "line 1: header is ()"),
        ("s.tsv", "a\tb\tc\n", "line 1: header is ('a', 'b', 'c')"),
        ("s.tsv", "text_a\ttext_b\tscore\nx\ty\n", "line 2: columns are 2"),
        ("s.tsv", "text_a\ttext_b\tscore\nx\ty\tz\n", "line 2: score is 'z'"),
        ("s.tsv", "text_a\ttext_b\tscore\nx\ty\tnan\n", "line 2: score is 'nan'"),
        ("s.tsv", "text_a\ttext_b\tscore\n \ty\t1\n", "line 2: text_a is empty"),
        ("s.tsv", "text_a\ttext_b\tscore\nx\ty\t1\nz\ty\t1\n", "2 pairs with 1 different scores"),
        ("s.jsonl", '{"text_a": "x", "text_b": "y"}\n', "line 1: score is None"),
        ("s.jsonl", '{"text_a": "x", "score": 1}\n', "line 1: text_b is missing"),
    ],
    ids=lambda value: value[:24],
)
def test_bad_pairs_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        read_pairs(tmp_path / name)
    assert said in str(refused.value)
