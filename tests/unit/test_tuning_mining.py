"""Mining with the embedded models: the right texts, each once, and nothing lost on a mistake."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedfleet.engine import EngineOptions, load_embedder, load_reranker
from embedfleet.errors import EmbedfleetError, InvalidExamples, InvalidRequest
from embedfleet.tuning.collection import collect, read_corpus
from embedfleet.tuning.examples import Example, read_examples
from embedfleet.tuning.mining import MiningFiles, MiningReport, mine
from embedfleet.tuning.negatives import MiningSettings
from embedfleet.tuning.searching import MiningModels

OPTIONS = EngineOptions(device="cpu", dtype="float32", num_threads=1)
MODELS = MiningModels("embedded/embedder", options=OPTIONS)
LOOSE = MiningSettings(negatives=3, margin=-2)  # everything passes
DATA: list[dict[str, Any]] = [
    {"query": "how to sort a list", "positives": ["sorted() returns a new sorted list"]},
    {
        "query": "read a file",
        "positives": ["open() gives a file object", "Path.read_text() reads a file"],
        "negatives": ["rename() gives a file another name"],
        "instruction": "Find the function",
        "task": "code",
        "language": "de",
    },
    {"query": "read a file", "positives": ["read() does"], "instruction": "Find the function"},
    {"query": "end a process", "positives": ["kill() ends a process"]},
]
CORPUS = [
    "open() gives a file object",
    " open() gives a file object\n",  # the same
    "rename() gives a file another name",
    "read() does",
    "read a file",  # the query itself
    "kill() ends a process",
    "caf\u00e9",
    "cafe\u0301",  # the same in other characters
    "a list keeps its order",
]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def files(tmp_path: Path) -> MiningFiles:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": text} for text in CORPUS])
    data = write(tmp_path / "data.jsonl", DATA)
    return MiningFiles(data, tmp_path / "mined.jsonl", corpus)


def mined(
    files: MiningFiles, settings: MiningSettings = LOOSE, models: MiningModels = MODELS
) -> tuple[list[list[str]], MiningReport]:
    """Mine, check that all else stays, and return what was added."""
    report = mine(files, models, settings)
    before, after = list(read_examples(files.data)), list(read_examples(files.output))
    added = []
    for old, new in zip(before, after, strict=True):
        assert new.negatives[: len(old.negatives)] == old.negatives
        assert Example(old.query, old.positives, new.negatives, old.instruction, old.task,
                       old.language) == new  # fmt: skip
        added.append(list(new.negatives[len(old.negatives) :]))
    return added, report


def cosines(query: str, instruction: str | None, documents: list[str]) -> list[float]:
    with load_embedder("embedded/embedder", options=OPTIONS) as embedder:
        vector = embedder.embed([query], "QUERY", instruction=instruction)[0]
        found: list[float] = (embedder.embed(documents, "DOCUMENT") @ vector).tolist()
    return found


def test_the_nearest_that_are_no_answers_are_found(files: MiningFiles) -> None:
    added, report = mined(files)
    # "read a file" is asked on two lines: the positives of both, and the known negative, are out.
    left = ["kill() ends a process", "café", "a list keeps its order"]
    order = np.argsort([-each for each in cosines("read a file", "Find the function", left)])
    assert added[1] == added[2] == [left[place] for place in order]
    candidates = [CORPUS[0], CORPUS[2], CORPUS[3], CORPUS[4], CORPUS[6], CORPUS[8]]
    order = np.argsort([-each for each in cosines("end a process", None, candidates)])[:3]
    assert added[3] == [candidates[place] for place in order]
    assert report == MiningReport(
        num_examples=4, num_queries=3, num_candidates=7, num_duplicates=2, num_empty=0,
        num_mined=9, num_short=0, too_near_positive=0, too_similar=0, too_relevant=0,
    )  # fmt: skip


@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.02, 0.3])
def test_negatives_are_below_the_least_similar_positive(files: MiningFiles, margin: float) -> None:
    added, report = mined(files, MiningSettings(negatives=20, margin=margin))
    texts = [CORPUS[place] for place in (0, 2, 3, 4, 5, 6, 8)]
    nothing: list[str] = []
    total = 0
    for row, excluded in ((0, nothing), (1, texts[:4]), (3, texts[4:5])):
        query, instruction = DATA[row]["query"], DATA[row].get("instruction")
        positives = [p for each in DATA if each["query"] == query for p in each["positives"]]
        bound = min(cosines(query, instruction, positives)) - margin
        left = [text for text in texts if text not in excluded]
        passed = {
            text
            for text, found in zip(left, cosines(query, instruction, left), strict=True)
            if found <= bound
        }
        assert set(added[row]) == passed
        total += len(left) - len(passed)
    assert report.too_near_positive == total
    assert report.num_short == 3


def test_without_a_corpus_others_positives_are_searched(files: MiningFiles) -> None:
    added, report = mined(MiningFiles(files.data, files.output))
    assert set(added[0]) <= {p for each in DATA[1:] for p in each["positives"]}
    assert set(added[1]) == {DATA[0]["positives"][0], DATA[3]["positives"][0]}
    assert (report.num_candidates, report.num_duplicates) == (5, 0)


def test_a_reranker_drops_what_it_takes_for_an_answer(files: MiningFiles) -> None:
    left = ["kill() ends a process", "café", "a list keeps its order"]
    with load_reranker("embedded/reranker", options=OPTIONS) as reranker:
        scores = reranker.score("read a file", left, instruction="Find the function").tolist()
    bound = sorted(scores)[1]
    models = MiningModels(
        "embedded/embedder", reranker="embedded/reranker", max_score=bound, options=OPTIONS
    )
    added, report = mined(files, LOOSE, models)
    everything, _ = mined(files)
    assert added[1] == [text for text in everything[1] if scores[left.index(text)] <= bound]
    assert len(added[1]) == 2
    assert report.too_relevant >= 1


def test_dimension_and_document_tokens_are_the_models(files: MiningFiles) -> None:
    short = MiningModels("embedded/embedder", dimension=32, max_document_tokens=3, options=OPTIONS)
    assert mined(files, LOOSE, short)[1].num_mined == 9
    with pytest.raises(InvalidRequest, match="dimension is 7"):
        mine(files, MiningModels("embedded/embedder", dimension=7, options=OPTIONS))
    with pytest.raises(InvalidRequest, match=r"max_score is 1.5"):
        MiningModels("embedded/embedder", max_score=1.5)
    with pytest.raises(InvalidRequest, match="max_document_tokens is 1"):
        MiningModels("embedded/embedder", max_document_tokens=1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": 5}', r"corpus.jsonl, line 3: text is 5, not text"),
        ('{"title": ["a"], "text": "b"}', r'line 3: title is \["a"\], not text'),
        ('{"body": "b", "id": 1}', "line 3: text is missing; fields are body, id"),
        ("{}", "fields are none"),
        ('["b"]', "line 3: is not an object"),
        ('{"text": ', "line 3: is not JSON in UTF-8"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ('{"text": "\udcff"}', "is not JSON in UTF-8"),
    ],
)
def test_a_line_of_a_corpus_that_is_no_document(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "corpus.jsonl"
    good = '\ufeff{"text": "fine"}\n\n'
    path.write_bytes((good + line).encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidExamples, match=said):
        list(read_corpus(path))


def test_titles_stand_before_texts(tmp_path: Path) -> None:
    records = [
        {"_id": "1", "title": "Sorting", "text": "Lists sort."},
        {"title": "", "text": "Alone."},
        {"title": "Alone", "text": ""},
        {"title": None, "text": None},
    ]
    path = write(tmp_path / "corpus.jsonl", records)
    assert list(read_corpus(path)) == ["Sorting Lists sort.", "Alone.", "Alone", ""]
    found = collect([Example("q", ("p",))], path)
    assert (found.num_candidates, found.num_empty) == (3, 1)
    assert list(found.documents) == ["Sorting Lists sort.", "Alone.", "Alone", "p"]


def test_what_is_wrong_leaves_the_last_result(files: MiningFiles, tmp_path: Path) -> None:
    files.output.write_text("kept")
    bad = write(tmp_path / "bad.jsonl", [DATA[0], {"query": "q", "positives": []}])
    empty = write(tmp_path / "empty.jsonl", [])
    cases: list[tuple[MiningFiles, type[EmbedfleetError], str]] = [
        (MiningFiles(bad, files.output), InvalidExamples, "bad.jsonl, line 2: positives is empty"),
        (MiningFiles(empty, files.output), InvalidExamples, "data .*empty.jsonl is empty"),
        (MiningFiles(files.data, files.output, empty), InvalidExamples, "corpus .* is empty"),
        (MiningFiles(files.data, files.data), InvalidRequest, "is the data that is read"),
        (MiningFiles(files.data, tmp_path / "no" / "x"), InvalidRequest, "cannot be written"),
    ]
    for given, kind, said in cases:
        with pytest.raises(kind, match=said):
            mine(given, MODELS, LOOSE)
    with pytest.raises(OSError, match=r"none.jsonl"):
        mine(MiningFiles(tmp_path / "none.jsonl", files.output), MODELS, LOOSE)
    assert files.output.read_text() == "kept"
    assert not list(tmp_path.glob(".*"))


def test_a_disk_without_room_leaves_the_last_result(files: MiningFiles, tmp_path: Path) -> None:
    files.output.write_text("kept")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(InvalidRequest, match=r"mined.jsonl cannot be written: File too large"):
            mine(files, MODELS, LOOSE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files.output.read_text() == "kept"
    assert not list(tmp_path.glob(".*"))
