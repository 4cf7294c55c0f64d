"""What the recipe gathers: pairs from packages, manual pages, docstrings and WordNet."""

import json
import shutil
import subprocess
import sys

import pytest

from embedfleet.embedded.recipe.__main__ import steps
from embedfleet.embedded.recipe.debian import Archive, package_pairs
from embedfleet.embedded.recipe.docstrings import file_pairs
from embedfleet.embedded.recipe.manuals import page_pair, plain
from embedfleet.embedded.recipe.pairs import (
    Pair,
    cut,
    held_out,
    one_of_each,
    unique,
    write_beir,
    write_train,
)
from embedfleet.embedded.recipe.wordnet import word_pairs
from embedfleet.errors import EmbedfleetError

LONG = (
    "A sentence that is long enough to be a document, because it has more than eighty characters."
)

PAGE = r""".\" A comment
.TH LS 1 "May 2026"
.SH NAME
ls \- list directory contents
.SH SYNOPSIS
.B ls
[\fIFILE\fR]...
.SH DESCRIPTION
.\" more
.PP
List information about the
.I FILEs
(the current directory by default).
\-a, \fB\-\-all\fR  do not ignore entries starting with .
"""

MDOC = """.Dd May 1, 2026
.Sh NAME
.Nm strlcpy
.Nd size-bounded string copying
.Sh DESCRIPTION
The
.Fn strlcpy
function copies strings.
"""


def test_texts_are_cut_between_words():
    assert cut("  one two three ", 8) == "one two"
    assert cut("one two", 7) == "one two"
    assert cut("abc defghij", 5) == "abc"


def test_what_came_before_or_says_too_little_is_dropped():
    pairs = [
        Pair("a", "what it does", LONG),
        Pair("b", "What it  DOES", LONG + " More."),
        Pair("c", "another query here", LONG.upper()),
        Pair("d", "too short", LONG + " Other."),
        Pair("e", "a short document follows", "short"),
    ]
    assert unique(pairs) == pairs[:1]
    assert unique([Pair("f", "fox", "an animal"), Pair("g", "", LONG)], short=True) == [
        Pair("f", "fox", "an animal")
    ]
    assert one_of_each([*pairs, Pair("a", "x", "y")]) == pairs


def test_groups_are_held_out_whole_and_by_name_alone():
    share = sum(held_out("packages", f"group-{i}", 0.1) for i in range(5000)) / 5000
    assert 0.08 < share < 0.12
    assert all(held_out("perl", name, 1.0) for name in "abc")
    assert not any(held_out("words", name, 0.0) for name in "abc")


def test_a_package_is_paired_without_what_repeats_its_summary():
    index = [
        ("ripgrep", "Recursively searches for a pattern\n Recursively searches for a pattern\n"
         " in files.\n .\n It is fast."),
        ("old", "transitional package\n Remove it."),
        ("x", "short\n Long text."),
    ]  # fmt: skip
    (pair,) = package_pairs(index)
    assert pair == Pair("ripgrep", "Recursively searches for a pattern", "in files.\nIt is fast.")


@pytest.mark.parametrize(
    ("page", "query", "document"),
    [
        (
            PAGE,
            "list directory contents",
            "List information about the FILEs (the current directory",
        ),
        (MDOC, "size-bounded string copying", "The strlcpy function copies strings."),
    ],
)
def test_manual_pages_are_read_as_text(page, query, document):
    pair = page_pair(page, "group")
    assert pair is not None
    assert (pair.group, pair.query) == ("group", query)
    assert pair.document.startswith(document)
    assert "\\" not in pair.document


def test_a_page_without_a_name_gives_nothing():
    assert page_pair(".SH DESCRIPTION\nIt exists.\n", "group") is None


def test_escapes_that_set_type_are_dropped():
    assert plain(r"\fBbold\fR \(aqquoted\(aq 1\-2 C:\e") == "bold 'quoted' 1-2 C:\\"


def test_docstrings_are_taken_out_of_the_code(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        'def area(width):\n    """Return the area of a square. More.\n\n    Args.\n    """\n'
        "    return width**2\n\n\ndef only():\n    '''Nothing but a docstring is here.'''\n"
    )
    assert list(file_pairs(file, "group")) == [
        Pair("group", "Return the area of a square", "def area(width):\n    return width ** 2")
    ]
    file.write_text("def broken(:\n")
    assert list(file_pairs(file, "group")) == []


def test_words_and_sentences_are_paired_with_meanings(tmp_path):
    folder = tmp_path / "usr/share/wordnet"
    folder.mkdir(parents=True)
    for part in ("verb", "adj", "adv"):
        (folder / f"data.{part}").write_text("  1 licence\n")
    (folder / "data.noun").write_text(
        "  1 licence\n"
        "00001740 05 n 02 northern_lights 0 aurora(p) 0 001 @ 00001930 n 0000 | lights of the "
        'north; "we saw the northern lights"\n'
    )
    meaning = "lights of the north"
    assert list(word_pairs(tmp_path)) == [
        Pair(
            "northern lights", "we saw the northern lights", f"northern lights, aurora: {meaning}"
        ),
        Pair("northern lights", "northern lights, aurora", meaning),
    ]


def test_what_is_written_is_read_by_tune_and_evaluate(tmp_path):
    pairs = [Pair(str(i), f"query number {i}", f"{LONG} {i}") for i in range(5)]
    write_train(tmp_path / "train.jsonl", pairs, "some")
    first = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert first == {"query": "query number 0", "positives": [f"{LONG} 0"], "task": "some"}
    write_beir(tmp_path / "beir", pairs, num_queries=2)
    assert len((tmp_path / "beir/corpus.jsonl").read_text().splitlines()) == 5
    queries = [json.loads(q) for q in (tmp_path / "beir/queries.jsonl").read_text().splitlines()]
    rows = (tmp_path / "beir/qrels/test.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == [query["_id"] for query in queries]
    assert all(row.split("\t")[1] == "d" + row.split("\t")[0][1:] for row in rows)


needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="apt: this is no Debian machine")


@needs_apt
def test_the_index_is_read_from_lists_of_its_own(tmp_path):
    """apt's own helper reads them; the machine's lists are not touched."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "x_Packages").write_text(
        "Package: librg\nSource: ripgrep (1-2)\nVersion: 1\n\nPackage: rg\nVersion: 1\n"
    )
    (lists / "x_Translation-en").write_text(
        "Package: librg\nDescription-en: summary\n Long text.\n .\n More.\n\n"
        "Package: elsewhere\nDescription-en: of no package here\n Long.\n"
    )
    assert list(Archive(tmp_path).index()) == [("ripgrep", "summary\n Long text.\n .\n More.")]


@needs_apt
def test_a_package_that_is_not_to_be_had_is_named(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/x_Translation-en").write_text("")
    with pytest.raises(EmbedfleetError, match=r"apt-get download no-such-package-here failed: "):
        Archive(tmp_path).files("no-such-package-here")


def test_steps_leave_what_later_ones_read(tmp_path):
    results = [str(result.relative_to(tmp_path)) for _, result, _ in steps(tmp_path)]
    assert results == [
        "data/sources.json",
        "first/reranker/tokenizer.json",
        "first/taught.npz",
        "first/embedder/model.safetensors",
        *(f"mined/{name}.jsonl" for name in ("manuals", "packages", "docstrings")),
        "runs/embedder/model/model.safetensors",
        "merged/embedder",
        "first/reranker/model.safetensors",
        "runs/reranker",
        "merged/reranker",
        "retrieval.json",
        "reranking.json",
    ]


def test_the_recipe_without_a_folder_says_how():
    program = [sys.executable, "-m", "embedfleet.embedded.recipe"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "usage: python -m embedfleet.embedded.recipe FOLDER\n",
    )
