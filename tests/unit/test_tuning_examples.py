"""Examples from JSON Lines: what is read, and what each mistake is told like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedfleet.errors import InvalidExamples
from embedfleet.tuning.examples import Example, check_examples, example_line, read_examples

GOOD = b'{"query": "q", "positives": ["p"]}'


def written(tmp_path: Path, *lines: bytes) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def test_fields_have_the_defaults_of_the_paper_s_retrieval(tmp_path: Path) -> None:
    whole = {
        "query": "caf\u00e9",
        "positives": ["a", "b"],
        "negatives": ["c"],
        "instruction": "Find",
        "task": "sts",
        "language": "fr",
    }
    file = written(tmp_path, GOOD, json.dumps(whole).encode())
    assert list(read_examples(file)) == [
        Example("q", ("p",), (), None, "retrieval", "en"),
        Example("caf\u00e9", ("a", "b"), ("c",), "Find", "sts", "fr"),
    ]


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    file = written(tmp_path, b"", GOOD, b"  \t", GOOD, b"{}")
    examples = read_examples(file)
    assert [next(examples).query, next(examples).query] == ["q", "q"]
    with pytest.raises(InvalidExamples, match="line 5: query is missing"):
        next(examples)


def test_null_is_what_is_left_out(tmp_path: Path) -> None:
    line = b'{"query": "q", "positives": ["p"], "negatives": null, "instruction": null}'
    assert list(read_examples(written(tmp_path, line))) == [Example("q", ("p",))]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nope", "is not JSON: Expecting value: line 1 column 1 (char 0). Write one object"),
        (b"[1]", "is the list [1], and an example is an object. Write it like"),
        (b'"text"', 'is the text "text", and an example is an object.'),
        (b'{"query": "q"}', "positives is missing; every example has a query and positives. Add"),
        (b'{"positives": ["p"]}', "query is missing; every example has"),
        (b'{"query": "q", "positives": "p"}', 'positives is the text "p"; it must be a list'),
        (b'{"query": "q", "positives": null}', "positives is null; it must be a list of texts."),
        (b'{"query": "q", "positives": []}', "positives is empty; at least one is needed. Add"),
        (b'{"query": "", "positives": ["p"]}', 'query is ""; it must hold text. Fill it in'),
        (b'{"query": " \\n", "positives": ["p"]}', 'query is " \\n"; it must hold text.'),
        (b'{"query": "q", "positives": ["p", ""]}', 'positives[1] is ""; it must hold text.'),
        (b'{"query": "q", "positives": [1]}', "positives[0] is the number 1; it must be text."),
        (b'{"query": true, "positives": ["p"]}', "query is true; it must be text. Put it in"),
        (
            b'{"query": "q", "positives": ["p"], "negatives": ["n", {}]}',
            "negatives[1] is the object {}; it must be text.",
        ),
        (
            b'{"query": "q", "positives": ["p"], "negativs": []}',
            '"negativs" is not a field of an example. Did you mean negatives?',
        ),
        (
            b'{"query": "q", "positives": ["p"], "zzz": 1}',
            '"zzz" is not a field of an example. Known: query, positives, negatives, instruction,',
        ),
        (b'{"query": "q", "query": "r", "positives": ["p"]}', "query is there twice. Keep one"),
        (
            b'{"query": "\\ud800", "positives": ["p"]}',
            'query is "\\ud800"; it holds half of a surrogate pair, which no UTF-8 can carry.',
        ),
        (b'{"query": "\xff"}', "byte 12 is 0xff, which is not UTF-8. Save the file as UTF-8."),
        (b"\xef\xbb\xbf" + GOOD, "starts with a byte order mark; UTF-8 needs none. Save it"),
        (
            b'{"query": "q", "positives": ["p"], "language": ""}',
            'language is ""; it must hold text. Fill it in, or leave out the line.',
        ),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_each_mistake_names_file_line_field_and_next_move(
    tmp_path: Path, line: bytes, said: str
) -> None:
    file = written(tmp_path, line)
    with pytest.raises(InvalidExamples) as caught:
        list(read_examples(file))
    assert caught.value.message.startswith(f"{file}, line 1: ")
    assert said in caught.value.message
    assert len(caught.value.message) < len(str(file)) + 300


def test_a_text_that_no_tokenizer_could_take_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, json.dumps({"query": "q" * 4_194_305, "positives": ["p"]}).encode())
    with pytest.raises(InvalidExamples, match="query has 4,194,305 characters; at most"):
        list(read_examples(file))


def test_a_check_goes_on_after_a_mistake_up_to_a_limit(tmp_path: Path) -> None:
    file = written(tmp_path, *[GOOD, b"{}"] * 30)
    problems = check_examples(file)
    assert len(problems) == 20
    assert problems[0].startswith(f"{file}, line 2: ")
    assert problems[-1].startswith(f"{file}, line 40: ")
    assert check_examples(written(tmp_path, GOOD)) == ()


@pytest.mark.parametrize(
    "example",
    [
        Example("q", ("p",)),
        Example('q"\n\u2028', ("p", "r"), ("n",), "Find", "sts", "de"),
    ],
)
def test_a_line_reads_back(tmp_path: Path, example: Example) -> None:
    line = example_line(example)
    assert "\n" not in line
    assert list(read_examples(written(tmp_path, line.encode()))) == [example]
