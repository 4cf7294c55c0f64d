"""`embedfleet tune` as a user runs it: kills, a full disk, several workers of a real Ray."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import losses, small_model, write_examples, write_settings

from embedfleet.cli.main import run
from embedfleet.config import Settings
from embedfleet.messages import Role

pytestmark = pytest.mark.timeout(1800)

COMMAND = (sys.executable, "-m", "embedfleet", "tune")
QUIET = {**Settings.load().environment, "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_examples(tmp_path / "examples.jsonl")
    for role in Role:
        small_model(tmp_path / role, role)
    return tmp_path


def settings(place: Path, role: Role, name: str = "run", **sections: Any) -> Path:
    given = {"model": {"source": str(place / role)}, "output": {"folder": str(place / name)}}
    return write_settings(place / f"{name}.yaml", **(given | sections))


def tune(
    role: Role, file: Path, *options: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, role, "-f", str(file), *options],
        capture_output=True, text=True, timeout=900, env=QUIET, preexec_fn=before,
        check=False,
    )  # fmt: skip


def train_here(role: Role, file: Path, *options: str) -> None:
    """Run the command in this process, where nothing has to be killed: it starts in no time."""
    assert run(["tune", role, "-f", str(file), *options]) == 0


def weights(place: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(place / name / "model" / "model.safetensors")


@pytest.mark.parametrize("role", list(Role))
def test_a_run_as_documented(place: Path, role: Role, capsys: pytest.CaptureFixture[str]) -> None:
    file = settings(place, role)
    train_here(role, file, "--dry-run")
    assert "24 examples, 6 steps of 6, 1.50 epochs" in capsys.readouterr().err
    assert not (place / "run").exists()
    done = tune(role, file, "--set", "schedule.steps=3")
    assert done.returncode == 0, done.stderr
    assert "step 3/3  loss " in done.stderr
    assert f"model: {place}/run/model" in done.stderr
    assert (place / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(losses(place / "run")) == 3


def test_kill_9_at_any_moment_and_the_same_command_ends_the_same(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"schedule": {"steps": 25}, "checkpoints": {"everySteps": 1, "keep": 2}}
    train_here(Role.EMBEDDER, settings(place, Role.EMBEDDER, "whole", **steps))
    file = settings(place, Role.EMBEDDER, "killed", **steps)
    metrics = place / "killed" / "metrics.jsonl"
    for at in (2, 13):
        process = subprocess.Popen(
            [*COMMAND, Role.EMBEDDER, "-f", str(file)], stderr=subprocess.DEVNULL, env=QUIET
        )
        deadline = time.monotonic() + 120
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < at:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train_here(Role.EMBEDDER, file)
    assert "goes on after step " in capsys.readouterr().err
    assert losses(place / "killed") == losses(place / "whole")
    expected = weights(place, "whole")
    assert all(torch.equal(t, expected[name]) for name, t in weights(place, "killed").items())


def test_a_full_disk_leaves_the_last_good_checkpoint(place: Path) -> None:
    # The first model fits under the limit of a file; the state that training needs does not.
    model = (place / Role.EMBEDDER / "model.safetensors").stat().st_size
    train_here(Role.EMBEDDER, settings(place, Role.EMBEDDER, "whole"))
    file = settings(place, Role.EMBEDDER, "full")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * model, 2 * model))

    stopped = tune(Role.EMBEDDER, file, before=small_files)
    assert stopped.returncode == 1
    assert "step-00000002 cannot be written: " in stopped.stderr
    assert "No checkpoint is there. Make room, then run the same command" in stopped.stderr
    assert not list((place / "full" / "checkpoints").iterdir())
    train_here(Role.EMBEDDER, file)
    expected = weights(place, "whole")
    assert all(torch.equal(t, expected[name]) for name, t in weights(place, "full").items())


def test_two_workers_of_ray_learn_what_one_does(place: Path) -> None:
    """Role and strategy reach Ray's workers; what each does is in `test_workers.py`."""
    role, workers = Role.RERANKER, {"count": 2, "cpus": 0.5, "strategy": "fsdp"}
    train_here(role, settings(place, role, "alone"))
    both = tune(role, settings(place, role, "both", workers=workers))
    assert both.returncode == 0, both.stderr
    assert losses(place / "both") == pytest.approx(losses(place / "alone"), abs=1e-4)
    expected = weights(place, "alone")
    for name, tensor in weights(place, "both").items():
        assert torch.allclose(tensor, expected[name], atol=2e-4), name


def test_what_stops_a_worker_is_told_as_in_one_process(place: Path) -> None:
    workers = {"count": 2, "cpus": 0.5}
    loss = {"matryoshka": [{"dimension": 64}]}
    file = settings(place, Role.EMBEDDER, workers=workers, loss=loss)
    failed = tune(Role.EMBEDDER, file)
    assert failed.returncode == 1
    assert "embedfleet: loss.matryoshka[0].dimension is 64; the model's vectors" in failed.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--set", "batch.sise=4"], 1, "batch.sise is 4: is not a field here. Did you mean size?"),
        (["--set", "batch"], 2, "--set batch: write it as FIELD=VALUE."),
        (["--set", "data=[{path: none.jsonl}]"], 1, "data[0].path is none.jsonl: no such file"),
        pytest.param(
            ["--set", "workers.gpus=1"],
            1,
            "workers.gpus is 1.0, but PyTorch finds no GPU here.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_refusals(
    place: Path, options: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = settings(place, Role.EMBEDDER)
    assert run(["tune", "embedder", "-f", str(file), *options]) == code
    assert said in capsys.readouterr().err
    assert not (place / "run").exists()


def test_malformed_lines_are_all_told_before_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (place / "examples.jsonl").open("a") as stream:
        stream.write('{"query": "q"}\n{"query": "q", "positives": [""]}\n')
    assert run(["tune", "embedder", "-f", str(settings(place, Role.EMBEDDER))]) == 1
    told = capsys.readouterr().err
    assert "examples.jsonl, line 25: positives is missing" in told
    assert 'examples.jsonl, line 26: positives[0] is "";' in told
    assert not (place / "run").exists()
