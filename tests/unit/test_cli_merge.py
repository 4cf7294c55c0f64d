"""`embedfleet merge` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from embedfleet.cli.main import run
from embedfleet.cli.merge import merge

SAME = ["embedded/embedder", "embedded/embedder"]


def test_a_merge_says_what_it_did(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    ended = CliRunner().invoke(merge, [*SAME, "--output", str(target), "--weights", "0.5,0.5"])
    assert ended.exit_code == 0, ended.output
    assert "DEGREES APART  TENSOR" in ended.stdout
    assert "Merged 2 checkpoints" in ended.stderr
    assert f"source: {target}" in ended.stderr
    # A checkpoint merged with itself is itself.
    source = Path(__file__).parents[2] / "platform/embedfleet/embedded/embedder"
    assert (target / "model.safetensors").read_bytes() == (
        source / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([*SAME], 2, "Missing option '--output'"),
        (["--output", "merged"], 2, "Missing argument 'CHECKPOINTS...'"),
        ([*SAME, "--output", "merged", "--weights", "a,b"], 2, "'a,b' is not numbers between"),
        ([*SAME, "--output", "merged", "--weights", "1,1"], 1, "weights sum to 2"),
        (["embedded/embedder", "--output", "merged"], 1, "merging takes at least 2"),
        (["nowhere", *SAME, "--output", "merged"], 1, "source nowhere is not a folder"),
        (
            ["embedded/embedder", "embedded/reranker", "--output", "merged"],
            1,
            "num_layers is 2",
        ),
    ],
)
def test_what_cannot_be_merged(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["merge", *arguments]) == code
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
