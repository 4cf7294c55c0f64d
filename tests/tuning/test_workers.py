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
from embedfleet.tuning.settings import read_settings
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker

pytestmark = pytest.mark.timeout(900)

PROGRAM = Path(gloo_runs.__file__)
STRATEGIES = ("ddp", "fsdp")
EACH = [(role, strategy) for role in Role for strategy in STRATEGIES]
# A high rate: workers that begin apart are far from one after these steps.
ADAPTERS = {"lora": {"rank": 4}, "optimizer": {"learningRate": 1e-2}}
DROPOUT = {"lora": {"rank": 2, "dropout": 0.3}, "workers": {"count": 2}}


def settings(place: Path, role: Role, name: str, **sections: Any) -> Path:
    """Write the settings of a run into a folder of its own."""
    given = {"model": {"source": str(place / role)}, "output": {"folder": str(place / name)}}
    data = [{"path": str(place / "examples.jsonl")}]
    (place / f"{name}.run").mkdir()
    file = place / f"{name}.run" / "tune.yaml"
    return write_settings(file, **(given | {"data": data} | sections))


def together(place: Path, *runs: tuple[Role, str, str], code: int = 0) -> None:
    """Let both processes do their parts of runs, to the same exit code, or tell what they said."""
    parts = [word for role, what, name in runs for word in (role, what, str(place / f"{name}.run"))]
    workers = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), *parts], stderr=subprocess.PIPE, text=True
        )
        for rank in range(gloo_runs.NUM_WORKERS)
    ]
    said = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [code, code], "\n".join(said)


def weights(place: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(place / name / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do every run, in as few processes as kills allow."""
    place = tmp_path_factory.mktemp("workers")
    write_examples(place / "examples.jsonl")
    for role in Role:
        small_model(place / role, role)
    embedder = Role.EMBEDDER
    for strategy in STRATEGIES:
        workers = {"count": 2, "strategy": strategy}
        for role in Role:
            settings(place, role, f"{role}-{strategy}", workers=workers)
        settings(place, embedder, f"adapters-{strategy}", workers=workers, **ADAPTERS)
        batch = {"size": 6, "microBatchTokens": 64}
        settings(place, embedder, f"step-{strategy}", workers=workers, batch=batch)
    for name in ("whole", "killed"):
        settings(place, embedder, name, **DROPOUT)
    together(
        place,
        *((role, "train", f"{role}-{strategy}") for role, strategy in EACH),
        *((embedder, "train", f"adapters-{strategy}") for strategy in STRATEGIES),
        *((embedder, "step", f"step-{strategy}") for strategy in STRATEGIES),
        (embedder, "train", "whole"),
        (embedder, "kill", "killed"),
        code=gloo_runs.KILLED,
    )
    together(place, (embedder, "train", "killed"))
    return place


def train_alone(place: Path, role: Role, name: str, **sections: Any) -> None:
    train(read_settings(settings(place, role, name, **sections), role), Worker(), Quiet())


@pytest.mark.parametrize(("role", "strategy"), EACH)
def test_two_workers_learn_what_one_does(place: Path, role: Role, strategy: str) -> None:
    both, alone = f"{role}-{strategy}", f"alone-{role}-{strategy}"
    train_alone(place, role, alone)
    assert losses(place / both) == pytest.approx(losses(place / alone), abs=1e-4)
    expected = weights(place, alone)
    for name, tensor in weights(place, both).items():
        assert torch.allclose(tensor, expected[name], atol=2e-4), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_workers_with_adapters_learn_what_one_does(place: Path, strategy: str) -> None:
    both, alone = f"adapters-{strategy}", f"alone-{strategy}"
    train_alone(place, Role.EMBEDDER, alone, **ADAPTERS)
    assert losses(place / both) == pytest.approx(losses(place / alone), abs=1e-4)
    expected = weights(place, alone)
    first = load_file(place / Role.EMBEDDER / "model.safetensors")
    for name, tensor in weights(place, both).items():
        assert torch.allclose(tensor, expected[name], atol=2e-4), name
    assert any(not torch.equal(tensor, first[name]) for name, tensor in expected.items())


def test_each_worker_drops_out_what_it_would_have_where_it_goes_on(place: Path) -> None:
    assert losses(place / "killed") == losses(place / "whole")
    expected = weights(place, "whole")
    assert all(torch.equal(t, expected[name]) for name, t in weights(place, "killed").items())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_that_one_worker_would_cache_gives_the_same_gradients(
    place: Path, strategy: str
) -> None:
    read = read_settings(place / f"step-{strategy}.run" / "tune.yaml", Role.EMBEDDER)
    expected = gloo_runs.first_gradients(read, Worker(), whole_tokens=2**62)
    for rank in range(gloo_runs.NUM_WORKERS):
        found = torch.load(place / f"step-{strategy}.{rank}.pt")
        assert {*found} == {*expected}
        for name, gradient in expected.items():
            assert torch.allclose(found[name], gradient, atol=1e-5), name
