"""What a run tells: metrics that a kill cut off, a picture, and what to do next."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from training_runs import small_model, write_examples, write_settings

from embedfleet.config import let_threads_sleep
from embedfleet.messages import Role
from embedfleet.tuning.progress import Progress, describe, plot_loss, summary
from embedfleet.tuning.settings import read_settings
from embedfleet.tuning.watching import Metrics, cut_metrics, metrics_line, read_metrics


def metrics(step: int) -> Metrics:
    return Metrics(step, 40, 4 / step, 1e-3, 1.0, 900, 0.1, 0.5, 0, False)


def report(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [metrics_line(metrics(step + 1)) for step in range(count)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_a_line_that_a_kill_cut_off_is_no_step(tmp_path: Path) -> None:
    folder = report(tmp_path / "run", 3)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "los')
    assert read_metrics(folder) == [asdict(metrics(step)) for step in (1, 2, 3)]


def test_steps_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    folder = report(tmp_path / "run", 5)
    cut_metrics(folder, 2)
    left = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in left] == [1, 2]
    cut_metrics(tmp_path, 2)  # where there is no file, there is nothing to drop
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_loss_is_drawn_and_summed_up(tmp_path: Path) -> None:
    assert plot_loss(tmp_path) is None
    folder = report(tmp_path / "run", 40)
    file = write_settings(tmp_path / "tune.yaml")
    told = list(summary(read_settings(file, Role.EMBEDDER), folder / "model"))
    assert told[0] == (
        "40 steps in 20 s, 1,800 tokens/s, padding 10.0%; loss 4.0000 at first, 0.1013 at last"
    )
    assert told[1] == f"loss: {folder}/loss.png"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert f"next: embedfleet evaluate --model {folder}/model --data FOLDER" in told


def test_without_a_terminal_some_steps_are_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read_settings(write_settings(tmp_path / "tune.yaml"), Role.EMBEDDER)
    with Progress(settings) as progress:
        progress.began(0, 40, 100)
        for step in range(40):
            progress.stepped(metrics(step + 1))
    told = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in told] == ["step 1/40", "step 20/40", "step 40/40"]
    assert "rate 1.00e-03  1,800 tokens/s  padding 10.0%  10 s left" in told[1]


def test_what_would_be_done_is_described(tmp_path: Path) -> None:
    write_examples(tmp_path / "examples.jsonl")
    small_model(tmp_path / "model", Role.EMBEDDER)
    model = {"source": str(tmp_path / "model")}
    file = write_settings(tmp_path / "tune.yaml", model=model, lora={"rank": 2})
    told = list(describe(read_settings(file, Role.EMBEDDER)))
    # Two layers of seven matrices with rank 2: 2 * (rows + columns) * rank each.
    shapes = [(64, 32), (32, 32), (32, 32), (32, 64), (48, 32), (48, 32), (32, 48)]
    trained = 2 * sum(2 * (rows + columns) for rows, columns in shapes)
    assert told[0].endswith(f" parameters, {trained:,} of them trained")
    assert told[1] == "data: 24 examples in 1 files"
    assert told[2].endswith("examples.jsonl retrieval/en: 24 examples, 6 steps of 6, 1.50 epochs")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")],
)
def test_threads_sleep_unless_the_user_says_otherwise(before: dict[str, str], after: str) -> None:
    let_threads_sleep(before)
    assert before == {"OMP_WAIT_POLICY": after}
