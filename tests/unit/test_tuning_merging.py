"""Checkpoints that become one: every tensor, its type, the files beside it, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.engine import EngineOptions, load_embedder
from embedfleet.errors import CheckpointError, EmbedfleetError, InvalidRequest
from embedfleet.messages import Role
from embedfleet.tuning.merging import RECORD_FILE, merge_checkpoints

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Maker:
    """Makes checkpoints beside the embedded one: the same model, its weights moved a little."""

    folder: Path

    def __call__(self, name: str, seed: int = 0, dtype: Any = None, change: Any = None) -> Path:
        source, target = resolve("embedded/embedder"), self.folder / name
        target.mkdir()
        for file in ("config.json", "tokenizer.json"):
            shutil.copyfile(source / file, target / file)
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for key, tensor in load_file(source / WEIGHTS).items():
            moved = tensor.float() + 0.5 * torch.randn(tensor.shape, generator=generator)
            tensors[key] = moved.to(dtype or tensor.dtype)
        if change is not None:
            change(tensors)
        save_file(tensors, target / WEIGHTS, {"format": "pt"})
        return target


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def slerp(one: Tensor, other: Tensor, share: float) -> Any:
    """Shoemake's formula on one flattened tensor, with lengths on a line."""
    a, b = (np.asarray(each.double().flatten()) for each in (one, other))
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    a, b = a / lengths[0], b / lengths[1]
    angle = np.arccos(a @ b)
    unit = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return (unit * ((1 - share) * lengths[0] + share * lengths[1])).reshape(one.shape)


@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(torch.float32, 2**-23), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)],
)
def test_every_tensor_is_the_slerp_in_its_own_type(
    made: Maker, tmp_path: Path, dtype: torch.dtype, rounding: float
) -> None:
    one, other = made("one", 1, dtype), made("other", 2, dtype)
    report = merge_checkpoints([one, other], tmp_path / "merged", [0.7, 0.3])
    mine, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    merged = load_file(tmp_path / "merged" / WEIGHTS)
    assert merged.keys() == mine.keys() == report.angles.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        expected = slerp(mine[name], theirs[name], 0.3)
        np.testing.assert_allclose(tensor.double().numpy(), expected, rtol=rounding, atol=1e-6)
        assert not torch.equal(tensor, mine[name])


def test_pieces_make_the_whole(made: Maker, tmp_path: Path) -> None:
    # The embedding table takes several pieces of a million numbers, the last one shorter.
    def change(tensors: dict[str, Tensor]) -> None:
        name = "model.embed_tokens.weight"
        tensors[name] = torch.randn(17_001, 128, generator=torch.Generator().manual_seed(5))

    one, other = made("one", 1, torch.float32, change), made("other", 2, torch.float32)
    table = load_file(one / WEIGHTS)
    table["model.embed_tokens.weight"] = table["model.embed_tokens.weight"].flip(0) + 0.1
    save_file(table, other / WEIGHTS)
    done: list[int] = []
    report = merge_checkpoints([one, other], tmp_path / "merged", advance=done.append)
    name = "model.embed_tokens.weight"
    expected = slerp(load_file(one / WEIGHTS)[name], table[name], 0.5)
    merged = load_file(tmp_path / "merged" / WEIGHTS)[name]
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert len(done) > len(report.angles)
    assert sum(done) == report.num_bytes == sum(t.nbytes for t in table.values())


def test_the_merged_model_is_served(made: Maker, tmp_path: Path) -> None:
    folders = [made(name, seed) for seed, name in enumerate(("one", "two", "three"))]
    report = merge_checkpoints(folders, tmp_path / "merged")
    assert report.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert all(0 < angle < 120 for angle in report.angles.values())
    open_checkpoint(tmp_path / "merged", Role.EMBEDDER)
    options = EngineOptions(device="cpu", dtype="float32", num_threads=1)
    with load_embedder(tmp_path / "merged", options=options) as embedder:
        assert np.isfinite(embedder.embed(["a text"], "DOCUMENT")).all()
    record = json.loads((tmp_path / "merged" / RECORD_FILE).read_text())
    assert [each["checkpoint"] for each in record["checkpoints"]] == [str(f) for f in folders]


def test_files_beside_the_weights_come_from_the_first(made: Maker, tmp_path: Path) -> None:
    one, other = made("one", 1), made("other", 2)
    (one / "tokenizer_config.json").write_text("{}")
    (one / "1_Pooling").mkdir()
    (one / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    (one / "training.json").write_text("{}")  # of one run, not of the merged model
    (one / "training").mkdir()
    merge_checkpoints([one, other], tmp_path / "merged")
    found = {str(f.relative_to(tmp_path / "merged")) for f in (tmp_path / "merged").rglob("*")}
    assert found == {
        *("1_Pooling", "1_Pooling/config.json", "config.json", "merge.json", WEIGHTS),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_shards_and_prefixes_may_differ(made: Maker, tmp_path: Path) -> None:
    one, other, plain = made("one", 1), made("other", 2), made("plain", 2)
    tensors = load_file(other / WEIGHTS)
    (other / WEIGHTS).unlink()
    shards: dict[str, dict[str, Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for index, (name, tensor) in enumerate(tensors.items()):
        shards["ab"[index % 2] + ".safetensors"][name.removeprefix("model.")] = tensor
    for file, part in shards.items():
        save_file(part, other / file)
    index_map = {name: file for file, part in shards.items() for name in part}
    (other / INDEX).write_text(json.dumps({"weight_map": index_map}))

    merge_checkpoints([one, plain], tmp_path / "expected")
    merge_checkpoints([one, other], tmp_path / "merged")
    assert (tmp_path / "merged" / WEIGHTS).read_bytes() == (
        tmp_path / "expected" / WEIGHTS
    ).read_bytes()
    # The first one's layout is kept: here it is the sharded one.
    merge_checkpoints([other, one], tmp_path / "sharded")
    digests = [
        open_checkpoint(tmp_path / name, Role.EMBEDDER).weights_digest
        for name in ("sharded", "merged")
    ]
    assert digests[0] == digests[1]
    assert (tmp_path / "sharded" / INDEX).is_file()


def reshaped(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()


def without_norm(tensors: dict[str, Tensor]) -> None:
    del tensors["model.norm.weight"]


def with_more(tensors: dict[str, Tensor]) -> None:
    tensors["model.extra.weight"] = torch.ones(3)


def retyped(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()


def opposite(tensors: dict[str, Tensor]) -> None:
    first = load_file(resolve("embedded/embedder") / WEIGHTS)["model.norm.weight"]
    tensors["model.norm.weight"] = -first


def plain_norm(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] = load_file(resolve("embedded/embedder") / WEIGHTS)[
        "model.norm.weight"
    ]


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"][0] = torch.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (reshaped, r"shape of tensor model.norm.weight is \[\d+\] in .*one and \[\d+\] in .*other"),
        (without_norm, "tensor model.norm.weight of .*one is missing in .*other"),
        (with_more, "tensor extra.weight of .*other is missing in .*one"),
        (retyped, "type of tensor model.norm.weight is BF16 in .*one and F32 in .*other"),
        (opposite, r"model.norm.weight points in opposite directions \(180.00 degrees"),
        (not_finite, "other: tensor model.norm.weight holds NaN or infinity"),
    ],
)
def test_checkpoints_of_two_models_are_refused(
    made: Maker, tmp_path: Path, change: Change, said: str
) -> None:
    one, other = made("one", 1, change=plain_norm), made("other", 2, change=change)
    with pytest.raises(CheckpointError, match=said):
        merge_checkpoints([one, other], tmp_path / "merged")
    assert {each.name for each in tmp_path.iterdir()} == {"one", "other"}


def test_another_configuration_or_tokenizer_is_refused(made: Maker, tmp_path: Path) -> None:
    one, other = made("one", 1), made("other", 2)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    with pytest.raises(CheckpointError, match=r"rope_theta is 1000000.0 in .*one and 5.0 in"):
        merge_checkpoints([one, other], tmp_path / "merged")
    # What changes no result may differ.
    (other / "config.json").write_text(json.dumps(config | {"transformers_version": "5"}))
    with (other / "tokenizer.json").open("a") as file:
        file.write("\n")
    with pytest.raises(CheckpointError, match=r"SHA-256 of tokenizer.json is \w{16} in .*one and"):
        merge_checkpoints([one, other], tmp_path / "merged")
    (other / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"other/tokenizer.json cannot be read"):
        merge_checkpoints([one, other], tmp_path / "merged")


@pytest.mark.parametrize(
    ("count", "weights", "said"),
    [
        (1, None, "checkpoints are 1; merging takes at least 2"),
        (2, [1.0], "weights are 1 for 2 checkpoints"),
        (2, [0.5, 0.3, 0.2], "weights are 3 for 2 checkpoints"),
        (2, [0.5, 0.6], "weights sum to 1.1; their sum must be 1. Give 0.4545455,0.5454545"),
        (2, [1.5, -0.5], r"weights\[0\] is 1.5; each lies between 0 and 1"),
        (2, [0.5, -0.5], r"weights\[1\] is -0.5"),
        (2, [0.5, float("nan")], r"weights\[1\] is nan"),
        (2, [0.0, 0.0], "weights sum to 0"),
    ],
)
def test_weights_that_are_none(
    tmp_path: Path, count: int, weights: list[float] | None, said: str
) -> None:
    source = resolve("embedded/embedder")
    with pytest.raises(InvalidRequest, match=said):
        merge_checkpoints([source] * count, tmp_path / "merged", weights)
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_kept(made: Maker, tmp_path: Path) -> None:
    one, other = made("one", 1), made("other", 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for name in ("full", "file", "one"):
        with pytest.raises(InvalidRequest, match="is there already and not an empty folder"):
            merge_checkpoints([one, other], tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    (tmp_path / ".empty.partial").mkdir()  # as a merge leaves it that was killed
    (tmp_path / ".empty.partial" / "half").write_text("")
    merge_checkpoints([one, other], tmp_path / "empty")
    assert not (tmp_path / "empty" / "half").exists()
    assert not (tmp_path / ".empty.partial").exists()


def test_a_disk_without_room_leaves_nothing_behind(tmp_path: Path) -> None:
    # A limit on a file's size stops the writing where a full disk would.
    source = resolve("embedded/embedder")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(CheckpointError) as refused:
            merge_checkpoints([source] * 2, tmp_path / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "merged cannot be written" in refused.value.message
    assert "are free there; nothing was left behind" in refused.value.message
    assert not any(tmp_path.iterdir())


def test_overflow_of_a_small_type_is_refused(made: Maker, tmp_path: Path) -> None:
    # Lengths meet on a line, so directions apart can push a component over what float16 holds.
    def change(row: int) -> Change:
        def apply(tensors: dict[str, Tensor]) -> None:
            norm = torch.zeros_like(tensors["model.norm.weight"])
            norm[0], norm[row] = 60_000, 60_000
            tensors["model.norm.weight"] = norm

        return apply

    one = made("one", 1, torch.float16, change(1))
    other = made("other", 2, torch.float16, change(2))
    with pytest.raises(EmbedfleetError, match=r"model.norm.weight overflows F16"):
        merge_checkpoints([one, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
