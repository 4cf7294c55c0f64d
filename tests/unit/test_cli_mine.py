"""`embedfleet mine` as a person runs it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedfleet.cli.main import run
from embedfleet.cli.mine import mine
from embedfleet.tuning.negatives import MiningSettings
from embedfleet.tuning.searching import MiningModels

EXAMPLES = [
    {"query": "sort a list", "positives": ["sorted() returns a new list"]},
    {"query": "read a file", "positives": ["open() gives a file object"]},
]


def data(folder: Path) -> str:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in EXAMPLES))
    return str(path)


def test_it_writes_examples_and_says_what_was_found(tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl"
    arguments = ["-m", "embedded/embedder", "--data", data(tmp_path), "--output", str(output)]
    ended = CliRunner().invoke(mine, [*arguments, "--margin", "-2"])
    assert ended.exit_code == 0, ended.output
    found = [json.loads(line)["negatives"] for line in output.read_text().splitlines()]
    assert found == [EXAMPLES[1]["positives"], EXAMPLES[0]["positives"]]
    counts = dict(line.rsplit(maxsplit=1) for line in ended.stdout.splitlines())
    assert counts["negatives found"] == "2"
    assert counts["left out: too near a positive"] == "0"
    assert "mined.jsonl" in ended.stderr


def test_defaults_are_those_of_the_settings(tmp_path: Path) -> None:
    settings, models = MiningSettings(), MiningModels("x")
    given = ["--model", "x", "--data", data(tmp_path), "--output", str(tmp_path / "mined.jsonl")]
    options = mine.make_context("mine", given).params
    for name in inspect.signature(MiningSettings).parameters:
        assert options[name] == getattr(settings, name), name
    for name in ("dimension", "max_document_tokens", "reranker", "max_score"):
        assert options[name] == getattr(models, name), name


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--data", "nowhere.jsonl"], 2, "File 'nowhere.jsonl' does not exist"),
        (["--negatives", "0"], 1, "negatives is 0"),
        (["--model", "nowhere"], 1, "source nowhere is not a folder"),
        (["--model", "embedded/reranker"], 1, "appends no final token"),
        (["--order", "best"], 2, "'best' is not one of 'hardest', 'random'"),
    ],
)
def test_what_cannot_be_mined(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "embedded/embedder", "--data", data(tmp_path)]
    output = tmp_path / "mined.jsonl"
    assert run(["mine", *given, "--output", str(output), *arguments]) == code
    assert said in capsys.readouterr().err
    assert not output.exists()
