"""Runs: going on as if nothing had happened, and stopping with nothing lost."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import Quiet, losses, small_model, write_examples, write_settings

from embedfleet.errors import CheckpointError, EmbedfleetError, InvalidRequest, TrainingStopped
from embedfleet.messages import Role
from embedfleet.tuning.checkpoints import Store
from embedfleet.tuning.settings import read_settings
from embedfleet.tuning.stepping import learning_rate_share
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker


class Killed(Exception):
    pass


class Killer(Quiet):
    """Ends a run in the middle of a step's report, as a kill would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def stepped(self, metrics: Any) -> None:
        if metrics.step == self.at:
            raise Killed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_examples(tmp_path / "examples.jsonl")
    return tmp_path


def run(
    place: Path, name: str = "run", role: Role = Role.EMBEDDER, watcher: Quiet | None = None,
    **sections: Any,
) -> Path:  # fmt: skip
    if not (place / role).exists():
        small_model(place / role, role)
    given = {"model": {"source": str(place / role)}, "output": {"folder": str(place / name)}}
    file = write_settings(place / "tune.yaml", **(given | sections))
    return train(read_settings(file, role), Worker(), watcher or Quiet())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("at", [1, 3, 4, 6])
@pytest.mark.parametrize("role", list(Role))
def test_a_killed_run_goes_on_to_the_same_weights(place: Path, role: Role, at: int) -> None:
    whole = run(place, "whole", role)
    with pytest.raises(Killed):
        run(place, "killed", role, Killer(at))
    watcher = Quiet()
    resumed = run(place, "killed", role, watcher)
    assert watcher.done == (at - 1) // 2 * 2
    assert losses(place / "killed") == losses(place / "whole")
    expected = weights(whole)
    assert {*weights(resumed)} == {*expected}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())


def test_dropout_goes_on_where_it_was(place: Path) -> None:
    lora = {"rank": 2, "dropout": 0.3}
    whole = run(place, "whole", lora=lora)
    with pytest.raises(Killed):
        run(place, "killed", watcher=Killer(5), lora=lora)
    resumed = run(place, "killed", lora=lora)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())


def test_a_finished_run_has_nothing_to_do(place: Path) -> None:
    model = run(place)
    before = (model / "model.safetensors").stat().st_mtime_ns
    watcher = Quiet()
    assert run(place, watcher=watcher) == model
    assert watcher.done == 6
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_the_loss_falls_and_the_model_was_moved(place: Path) -> None:
    model = run(place, schedule={"steps": 30}, optimizer={"learningRate": 5e-3})
    found = losses(place / "run")
    assert sum(found[-5:]) < 0.7 * sum(found[:5])
    first = weights(place / "embedder")
    assert all(not torch.equal(tensor, first[name]) for name, tensor in weights(model).items())


@pytest.mark.parametrize("cache", ["always", "never"])
def test_cached_gradients_give_the_same_losses(place: Path, cache: str) -> None:
    run(place, "whole")
    run(place, cache, batch={"size": 6, "cacheGradients": cache, "microBatchTokens": 64})
    assert losses(place / cache) == pytest.approx(losses(place / "whole"), abs=1e-5)


def test_only_so_many_checkpoints_stay_and_the_newest_two_can_go_on(place: Path) -> None:
    run(place, checkpoints={"everySteps": 1, "keep": 3})
    kept = sorted((place / "run" / "checkpoints").iterdir())
    assert [each.name for each in kept] == ["step-00000004", "step-00000005", "step-00000006"]
    assert [(each / "training").is_dir() for each in kept] == [False, True, True]
    assert all((each / "model.safetensors").is_file() for each in kept)


def test_what_was_half_written_is_not_taken_for_a_checkpoint(place: Path) -> None:
    with pytest.raises(Killed):
        run(place, watcher=Killer(5))
    checkpoints = place / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-00000004", checkpoints / ".step-00000006.partial")
    (checkpoints / ".step-00000006.partial" / "model.safetensors").write_bytes(b"half")
    watcher = Quiet()
    run(place, watcher=watcher)
    assert watcher.done == 4
    assert not list(checkpoints.glob(".*"))


def damage(place: Path, step: int) -> Path:
    folder = place / "run" / "checkpoints" / f"step-{step:08d}"
    state = folder / "training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    return folder


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(place: Path) -> None:
    whole = run(place, "whole")
    with pytest.raises(Killed):
        run(place, watcher=Killer(5))
    damaged = damage(place, 4)
    said = r"step-00000004 cannot be read .* Remove that folder to go on from step-00000002, or"
    with pytest.raises(CheckpointError, match=said):
        run(place)
    shutil.rmtree(damaged)
    watcher = Quiet()
    resumed = run(place, watcher=watcher)
    assert watcher.done == 2
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())


def test_where_no_checkpoint_can_go_on_nothing_is_begun_again(place: Path) -> None:
    every = {"checkpoints": {"everySteps": 1}}
    with pytest.raises(Killed):
        run(place, watcher=Killer(4), **every)
    checkpoints = place / "run" / "checkpoints"
    kept = [f"step-{step:08d}" for step in (1, 2, 3)]
    assert sorted(each.name for each in checkpoints.iterdir()) == kept
    shutil.rmtree(damage(place, 3))
    damage(place, 2)
    said = r"step-00000002 cannot be read .* No other has what training needs: choose another"
    with pytest.raises(CheckpointError, match=said):
        run(place, **every)
    shutil.rmtree(checkpoints / "step-00000002")
    with pytest.raises(CheckpointError, match="step-00000001 is a model without training/, which"):
        run(place, **every)
    assert [each.name for each in checkpoints.iterdir()] == ["step-00000001"]


def test_what_pruning_had_begun_to_remove_is_removed(place: Path) -> None:
    with pytest.raises(Killed):
        run(place, watcher=Killer(5))
    checkpoints = place / "run" / "checkpoints"
    (checkpoints / "step-00000002" / "training").rename(
        checkpoints / "step-00000002" / ".training.partial"
    )
    run(place)
    assert not list(checkpoints.rglob(".*.partial"))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"batch": {"size": 5}}, "a run with batch.size 6; now it is 5. Restore that to go on"),
        ({"seed": 3}, "a run with seed 0; now it is 3."),
        ({"loss": {"temperature": 0.1}}, "loss.temperature 0.05; now it is 0.1."),
        ({"lora": {"rank": 2}}, 'a run with lora unset; now it is {"rank": 2'),
        ({"schedule": {"steps": 7}}, "schedule.steps 6; now it is 7."),
    ],
)
def test_another_run_does_not_go_on_in_its_place(
    place: Path, sections: dict[str, Any], said: str
) -> None:
    run(place)
    with pytest.raises(TrainingStopped) as caught:
        run(place, **sections)
    assert said in caught.value.message


def test_what_does_not_change_the_outcome_may_change(place: Path) -> None:
    with pytest.raises(Killed):
        run(place, watcher=Killer(5))
    run(place, checkpoints={"everySteps": 1, "keep": 1}, threads=None)
    assert len(losses(place / "run")) == 6


def test_other_data_is_another_run(place: Path) -> None:
    run(place)
    file = write_examples(place / "examples.jsonl", 25)
    with pytest.raises(TrainingStopped, match="holds a run in which the data is 24-"):
        run(place)
    file.rename(place / "moved.jsonl")
    write_examples(place / "examples.jsonl", 24)
    (place / "examples.jsonl").rename(place / "again.jsonl")
    run(place, data=[{"path": str(place / "again.jsonl")}])


def test_a_folder_with_other_things_is_left_alone(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingStopped, match="is not empty and holds no run"):
        run(place)
    assert [each.name for each in (place / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("role", list(Role))
def test_a_loss_that_is_no_number_stops_with_the_last_checkpoint_kept(
    place: Path, role: Role
) -> None:
    with pytest.raises(Killed):
        run(place, role=role, watcher=Killer(5))
    newest = Store(place / "run", 3).newest()
    assert newest is not None
    state = load_file(newest / "training" / "state.safetensors")
    state["weight.body.norm.weight"][0] = math.nan
    from safetensors.torch import save_file

    save_file(state, newest / "training" / "state.safetensors")
    before = (newest / "model.safetensors").read_bytes()
    with pytest.raises(TrainingStopped) as caught:
        run(place, role=role)
    said = caught.value.message
    assert said.startswith("step 5: loss is nan")
    assert f"The batch is of {place}/examples.jsonl, line " in said
    assert f"The last good checkpoint is {newest}" in said
    assert (newest / "model.safetensors").read_bytes() == before
    assert len(losses(place / "run")) == 4
    assert not (place / "run" / "model").exists()


@pytest.mark.parametrize(
    ("sections", "kind", "said"),
    [
        (
            {"loss": {"matryoshka": [{"dimension": 64}]}},
            InvalidRequest,
            r"loss.matryoshka\[0\].dimension is 64; the model's vectors have 32 components",
        ),
        ({"model": {"source": "/nowhere"}}, CheckpointError, "/nowhere is not a folder"),
        (
            {"sequence": {"maxQueryTokens": 4}},
            InvalidRequest,
            r"sequence.maxQueryTokens: instruction takes .* Or raise maxQueryTokens",
        ),
    ],
)
def test_what_cannot_begin_leaves_nothing_behind(
    place: Path, sections: dict[str, Any], kind: type[EmbedfleetError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(place, **sections)
    assert not (place / "run").exists()


def test_a_saved_model_has_the_type_asked_for(place: Path) -> None:
    model = run(place, output={"folder": str(place / "run"), "dtype": "bfloat16"})
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.bfloat16}
    assert json.loads((model / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine(place: Path) -> None:
    small_model(place / "embedder", Role.EMBEDDER)
    schedule = {"steps": 101, "warmupShare": 0.1, "minimumShare": 0.2}
    file = write_settings(place / "tune.yaml", schedule=schedule)
    settings = read_settings(file, Role.EMBEDDER)
    shares = [learning_rate_share(step, 101, settings) for step in range(101)]
    assert shares[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert shares[11] == 1
    assert shares[100] == pytest.approx(0.2)
    middle = 0.2 + 0.8 * (1 + math.cos(math.pi * 44 / 89)) / 2
    assert shares[55] == pytest.approx(middle)
