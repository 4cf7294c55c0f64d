"""Two real processes that train one model, as workers of a run do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gloo_runs
import pytest
import torch
from safetensors.torch import load_file
from training_runs import Quiet, losses, small_model, write_examples, write_settings

from embedfleet.messages import Role
from embedfleet.tuning.settings import EmbedderSettings, read_settings
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker

pytestmark = pytest.mark.timeout(900)

PROGRAM = Path(gloo_runs.__file__)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_examples(tmp_path / "examples.jsonl")
    small_model(tmp_path / "model", Role.EMBEDDER)
    return tmp_path


def settings(place: Path, name: str, **sections: Any) -> Path:
    given = {"model": {"source": str(place / "model")}, "output": {"folder": str(place / name)}}
    return write_settings(place / "tune.yaml", **(given | sections))


def together(what: str, place: Path, code: int = 0) -> None:
    """Let both processes do their part, to the same exit code, or tell what they said."""
    workers = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), what, str(rank), str(place)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(gloo_runs.NUM_WORKERS)
    ]
    said = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [code, code], "\n".join(said)


def alone(file: Path) -> None:
    train(read_settings(file, Role.EMBEDDER), Worker(), Quiet())


def weights(place: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(place / name / "model" / "model.safetensors")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_with_adapters_learn_what_one_does(place: Path, strategy: str) -> None:
    # A high rate: workers that begin apart are far from one after these steps.
    given = {"lora": {"rank": 4}, "optimizer": {"learningRate": 1e-2}}
    alone(settings(place, "alone", **given))
    settings(place, "both", workers={"count": 2, "strategy": strategy}, **given)
    together("train", place)
    assert losses(place / "both") == pytest.approx(losses(place / "alone"), abs=1e-4)
    expected = weights(place, "alone")
    first = load_file(place / "model" / "model.safetensors")
    for name, tensor in weights(place, "both").items():
        assert torch.allclose(tensor, expected[name], atol=2e-4), name
    assert any(not torch.equal(tensor, first[name]) for name, tensor in expected.items())


def test_each_worker_drops_out_what_it_would_have_where_it_goes_on(place: Path) -> None:
    given = {"lora": {"rank": 2, "dropout": 0.3}, "workers": {"count": 2}}
    settings(place, "whole", **given)
    together("train", place)
    settings(place, "killed", **given)
    together("kill", place, gloo_runs.KILLED)
    together("train", place)
    assert losses(place / "killed") == losses(place / "whole")
    expected = weights(place, "whole")
    assert all(torch.equal(t, expected[name]) for name, t in weights(place, "killed").items())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_batch_that_one_worker_would_cache_gives_the_same_gradients(
    place: Path, strategy: str
) -> None:
    workers = {"count": 2, "strategy": strategy}
    batch = {"size": 6, "microBatchTokens": 64}
    file = settings(place, "both", workers=workers, batch=batch)
    together("step", place)
    read = read_settings(file, Role.EMBEDDER)
    assert isinstance(read, EmbedderSettings)
    expected = gloo_runs.first_gradients(read, Worker(), whole_tokens=2**62)
    for rank in range(gloo_runs.NUM_WORKERS):
        found = torch.load(place / f"both.{rank}.pt")
        assert {*found} == {*expected}
        for name, gradient in expected.items():
            assert torch.allclose(found[name], gradient, atol=1e-5), name
