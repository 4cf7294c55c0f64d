"""What a run leaves on disk: checkpoints that are whole or not there, and the finished model.

Each is written beside its place, flushed to the disk and renamed, so that a kill or a full disk
at any moment leaves the last good one. A checkpoint is a model that can be served or merged; what
training needs to go on lies in it under `training/`, kept for the newest two: weights and two
moments, 12 bytes for each number that is trained. While a third is written all three are there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedfleet.checkpoint.config import CONFIG_FILE
from embedfleet.checkpoint.shards import INDEX_FILE, SINGLE_FILE
from embedfleet.durable import partial_name, replacing, sync
from embedfleet.errors import CheckpointError, TrainingStopped

__all__ = ["ModelFiles", "Restored", "Store"]

_STEP: Final = re.compile(r"step-(\d{8})")
_TRAINING: Final = "training"
_RESUMABLE: Final = 2
"""Checkpoints that keep their training state: one may turn out to be damaged."""
_STATE: Final = "state.safetensors"
_PROGRESS: Final = "progress.json"
_ABOUT: Final = "training.json"
_COPIED: Final = ("*.json", "*.jinja", "merges.txt", "vocab.json", "*_Pooling/config.json")
_NOT_COPIED: Final = (CONFIG_FILE, INDEX_FILE, "merge.json", "run.json", "training.json")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a saved model is made of.

    Attributes:
        source: Folder of the checkpoint that training began from: tokenizer, configuration.
        dtype: Of saved weights.
        weights: Gives every tensor under its stored name.
    """

    source: Path
    dtype: torch.dtype
    weights: Callable[[], Iterable[tuple[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Restored:
    """Where a run goes on.

    Attributes:
        step: Steps that are done.
        state: Tensors of weights and optimizer by name.
        progress: What else was kept.
    """

    step: int
    state: Mapping[str, Tensor]
    progress: Mapping[str, Any]


class Store:
    """The checkpoints of one run.

    Args:
        folder: The run's own; made if it is not there.
        keep: How many checkpoints stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.model_folder = folder / "model"
        self._checkpoints = folder / "checkpoints"
        self._keep = keep

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint that a run can go on from."""
        found = self._resumable()
        return found[-1] if found else None

    def restore(self) -> Restored | None:
        """Read where the newest checkpoint ended; None if there is none.

        Raises:
            CheckpointError: It is damaged, or none keeps what training needs.
        """
        folder = self.newest()
        if folder is None:
            self._refuse_models_only()
            return None
        try:
            progress = json.loads((folder / _TRAINING / _PROGRESS).read_bytes())
            return Restored(int(progress["step"]), load_file(folder / _TRAINING / _STATE), progress)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            before = self._resumable()[:-1]
            move = (
                f"Remove that folder to go on from {before[-1].name}, or choose"
                if before
                else "No other has what training needs: choose"
            )
            raise CheckpointError(
                f"{folder} cannot be read ({error}), so the run cannot go on from it. {move} "
                "another output.folder."
            ) from error

    def _refuse_models_only(self) -> None:
        """Refuse to begin again above checkpoints of a run, which it would replace."""
        models = self._all()
        if models:
            raise CheckpointError(
                f"{models[-1]} is a model without {_TRAINING}/, which training needs to go on, and "
                "so is every checkpoint before it. Choose another output.folder, or remove "
                f"{self._checkpoints} to begin again in this one."
            )

    def save(
        self, step: int, model: ModelFiles, state: dict[str, Tensor], progress: Mapping[str, Any]
    ) -> Path:
        """Keep what was reached after a step, and drop what is older than is kept.

        Raises:
            TrainingStopped: It cannot be written; checkpoints before it are whole.
        """
        target = self._checkpoints / f"step-{step:08d}"

        def write(folder: Path) -> None:
            _write_model(folder, model)
            (folder / _TRAINING).mkdir()
            _save_tensors(folder / _TRAINING / _STATE, state)
            text = json.dumps({**progress, "step": step}, indent=2)
            (folder / _TRAINING / _PROGRESS).write_text(text + "\n")

        self._put(target, write)
        self._prune()
        return target

    def finish(self, model: ModelFiles, about: Mapping[str, Any]) -> Path:
        """Write the finished model.

        Raises:
            TrainingStopped: It cannot be written; checkpoints are whole.
        """

        def write(folder: Path) -> None:
            _write_model(folder, model)
            (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")

        self._put(self.model_folder, write)
        return self.model_folder

    def is_finished(self) -> bool:
        """Whether the finished model is there."""
        return (self.model_folder / _ABOUT).is_file()

    def write_text(self, name: str, text: str) -> None:
        """Replace a small file of the run as a whole."""
        self.guard(name, lambda: _replace_text(self.folder / name, text))

    def guard(self, name: str, act: Callable[[], None], partial: Path | None = None) -> None:
        """Write something, and say what is kept if that fails.

        Raises:
            TrainingStopped: The disk is full, or the folder cannot be written to.
        """
        try:
            act()
        except (OSError, SafetensorError) as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            newest = self.newest()
            kept = f"The last good checkpoint is {newest}" if newest else "No checkpoint is there"
            free = shutil.disk_usage(_existing(self.folder)).free
            raise TrainingStopped(
                f"{self.folder / name} cannot be written: {error} ({free:,} bytes are free). "
                f"{kept}. Make room, then run the same command to go on.",
                field="output.folder",
            ) from error

    def clean(self) -> None:
        """Remove what a killed run had begun to write."""
        for parent in (self.folder, self._checkpoints, *self._all()):
            for left in parent.glob(".*.partial"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _all(self) -> list[Path]:
        if not self._checkpoints.is_dir():
            return []
        return sorted(each for each in self._checkpoints.iterdir() if _STEP.fullmatch(each.name))

    def _resumable(self) -> list[Path]:
        return [each for each in self._all() if (each / _TRAINING).is_dir()]

    def _prune(self) -> None:
        for folder in self._all()[: -self._keep]:
            _remove(folder)
        for folder in self._resumable()[:-_RESUMABLE]:
            _remove(folder / _TRAINING)

    def _put(self, target: Path, write: Callable[[Path], None]) -> None:
        """Fill a folder beside its place, flush it, and rename it into place."""
        partial = partial_name(target)

        def act() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            write(partial)
            for file in partial.rglob("*"):
                sync(file)
            sync(partial)
            if target.exists():
                _remove(target)
            partial.rename(target)
            sync(target.parent)

        self.guard(str(target.relative_to(self.folder)), act, partial)


def _write_model(folder: Path, model: ModelFiles) -> None:
    """Write a folder in Hugging Face layout."""
    for pattern in _COPIED:
        for file in sorted(model.source.glob(pattern)):
            if file.name in _NOT_COPIED and file.parent == model.source:
                continue
            copy = folder / file.relative_to(model.source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
    config = json.loads((model.source / CONFIG_FILE).read_bytes())
    config.pop("torch_dtype", None)
    config["architectures"] = ["Qwen3ForCausalLM"]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: tensor.detach().to("cpu", model.dtype).contiguous()
        for name, tensor in model.weights()
    }
    _save_tensors(folder / SINGLE_FILE, tensors)


def _save_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, file, {"format": "pt"})


def _replace_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as target:
        target.write(text)


def _remove(folder: Path) -> None:
    """Take a folder away at once, so that no half of it is ever found under its name."""
    going = partial_name(folder)
    if going.exists():
        shutil.rmtree(going)
    folder.rename(going)
    shutil.rmtree(going)


def _existing(path: Path) -> Path:
    """Return the folder itself or the nearest above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())
