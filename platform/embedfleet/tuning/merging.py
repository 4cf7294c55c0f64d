"""Checkpoints of one model into one, tensor by tensor, as the paper's last step.

Each tensor, flattened, is a vector: directions meet in their spherical mean (slerp, for two) and
lengths in their weighted mean. Computed in float64, stored in the type that went in. Tensors pass
through in pieces, so that memory does not grow with the model. The output has the first
checkpoint's files, and is either whole or not there.

Source: arXiv 2506.05176, section 3.3, after Li et al., "Improving general text embedding model:
tackling task conflict and data imbalance through model merging" (2024).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from embedfleet.checkpoint.shards import (
    INDEX_FILE,
    ITEM_SIZES,
    StoredTensor,
    read_header,
    weight_files,
)
from embedfleet.durable import partial_name, sync
from embedfleet.errors import CheckpointError, InvalidRequest
from embedfleet.tuning.agreement import agreeing_tensors, companion_files
from embedfleet.tuning.spherical import largest_angle, mean_coefficients

__all__ = ["RECORD_FILE", "MergeReport", "merge_checkpoints"]

RECORD_FILE: Final = "merge.json"
"""Beside the merged weights: what they were made of."""

_PIECE_ITEMS: Final = 1 << 20
_DTYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_WEIGHT_TOLERANCE: Final = 1e-6

Float64Array = npt.NDArray[np.float64]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was merged.

    Attributes:
        weights: Of each checkpoint, sum 1.
        angles: By tensor, degrees between the two most different directions.
        num_bytes: Of all tensors.
    """

    weights: tuple[float, ...]
    angles: Mapping[str, float]
    num_bytes: int


def merge_checkpoints(
    folders: Sequence[Path],
    output: Path,
    weights: Sequence[float] | None = None,
    advance: Advance = lambda num_bytes: None,
) -> MergeReport:
    """Merge checkpoints in Hugging Face layout into a new folder.

    Args:
        folders: At least two, of one shape, type and tokenizer.
        output: Not there yet, or empty.
        weights: Of each checkpoint, not negative, sum 1; None means equal ones.
        advance: Called with the bytes of one checkpoint that were finished since the last call.

    Raises:
        InvalidRequest: The number of checkpoints, a weight or the output folder is not possible.
        CheckpointError: Checkpoints do not agree, are damaged, or have no mean, or the output
            cannot be written. Nothing is left of it then.
    """
    shares = _shares(len(folders), weights)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InvalidRequest(
            f"output {output} is there already and not an empty folder. Name a new one.",
            field="output",
        )
    tensors = agreeing_tensors(folders)
    partial = partial_name(output.absolute())
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists():
            shutil.rmtree(partial)  # left by a merge that was killed
        partial.mkdir()
        angles = _write_weights(folders[0], partial, _Merging(folders, tensors, shares, advance))
        _write_companions(folders, partial, shares)
        _flush(partial)
        partial.rename(output)
        sync(output.absolute().parent)
    except OSError as error:
        need = sum(tensor.num_bytes for tensor, *_ in tensors.values())
        free = shutil.disk_usage(next(each for each in partial.parents if each.exists())).free
        raise CheckpointError(
            f"{output} cannot be written: {error}. The merge needs {need:,} bytes and "
            f"{free:,} are free there; nothing was left behind. Make room, or name another "
            "--output."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return MergeReport(shares, angles, sum(each[0].num_bytes for each in tensors.values()))


@dataclass(frozen=True, slots=True)
class _Merging:
    folders: Sequence[Path]
    tensors: Mapping[str, tuple[StoredTensor, ...]]
    shares: tuple[float, ...]
    advance: Advance

    def coefficients(self, name: str) -> tuple[Float64Array, float]:
        """Give each checkpoint's factor for a tensor, and the angle between directions."""
        stored = self.tensors[name]
        gram = np.zeros((len(stored), len(stored)))
        for piece in _pieces(stored):
            rows = piece.numpy()
            gram += rows @ rows.T
        for folder, own in zip(self.folders, np.diagonal(gram), strict=True):
            if not math.isfinite(own):
                raise CheckpointError(
                    f"{folder}: tensor {name} holds NaN or infinity, or squares that overflow. "
                    "Merge checkpoints from before training went wrong."
                )
        found = mean_coefficients(gram, np.array(self.shares))
        angle = largest_angle(gram)
        if found is None:
            raise CheckpointError(
                f"tensor {name} points in opposite directions ({angle:.2f} degrees apart), so no "
                "direction lies between them. Merge checkpoints of one training run, or leave one "
                "out."
            )
        return found, angle


def _shares(count: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    """Check weights and make their sum exact."""
    if count < 2:
        raise InvalidRequest(
            f"checkpoints are {count}; merging takes at least 2. Name another one.",
            field="checkpoints",
        )
    given = [1 / count] * count if weights is None else list(weights)
    if len(given) != count:
        raise InvalidRequest(
            f"weights are {len(given)} for {count} checkpoints. Give one for each, in their order.",
            field="weights",
        )
    for index, weight in enumerate(given):
        if not 0 <= weight <= 1:  # NaN too
            raise InvalidRequest(
                f"weights[{index}] is {weight:g}; each lies between 0 and 1. Correct it.",
                field=f"weights[{index}]",
            )
    total = math.fsum(given)
    if abs(total - 1) > _WEIGHT_TOLERANCE:
        suggestion = ",".join(f"{weight / total:.7g}" for weight in given) if total else "others"
        raise InvalidRequest(
            f"weights sum to {total:g}; their sum must be 1. Give {suggestion}.", field="weights"
        )
    return tuple(weight / total for weight in given)


def _write_weights(first: Path, partial: Path, merging: _Merging) -> dict[str, float]:
    """Write the first checkpoint's weight files with merged tensors in the place of its own."""
    angles: dict[str, float] = {}
    files, _ = weight_files(first)
    for file in files:
        stored = read_header(file)
        with (partial / file.name).open("wb") as target:
            with file.open("rb") as source:
                # The header tells names, types and places, which stay as they are.
                head = 8 + int.from_bytes(source.read(8), "little")
                source.seek(0)
                target.write(source.read(head))
            for tensor in stored:
                factors, angles[tensor.name] = merging.coefficients(tensor.name)
                weights = torch.from_numpy(factors)
                for piece in _pieces(merging.tensors[tensor.name]):
                    merged = (weights @ piece).to(_DTYPES[tensor.dtype])
                    if not bool(merged.isfinite().all()):
                        raise CheckpointError(
                            f"tensor {tensor.name} overflows {tensor.dtype} when it is merged. "
                            "Store the checkpoints as float32 or bfloat16."
                        )
                    data = merged.view(torch.uint8).numpy()
                    target.write(data.data)
                    merging.advance(len(data))
    return angles


def _pieces(stored: Sequence[StoredTensor]) -> Iterator[torch.Tensor]:
    """Read the same stretch of each checkpoint's tensor: (checkpoints, items) float64."""
    size = ITEM_SIZES[stored[0].dtype]
    for start in range(0, stored[0].num_bytes, _PIECE_ITEMS * size):
        count = min(_PIECE_ITEMS * size, stored[0].num_bytes - start)
        rows = torch.empty((len(stored), count // size), dtype=torch.float64)
        for row, tensor in zip(rows, stored, strict=True):
            with tensor.file.open("rb") as source:
                source.seek(tensor.start + start)
                data = bytearray(source.read(count))
            if len(data) != count:
                raise CheckpointError(
                    f"{tensor.file} ended inside tensor {tensor.name}: it changed while it was "
                    "read. Merge again when nothing writes to it."
                )
            row.copy_(torch.frombuffer(data, dtype=_DTYPES[tensor.dtype]))
        yield rows


def _write_companions(folders: Sequence[Path], partial: Path, shares: Sequence[float]) -> None:
    for file in companion_files(folders[0]):
        copy = partial / file.relative_to(folders[0])
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    if (folders[0] / INDEX_FILE).is_file():
        shutil.copyfile(folders[0] / INDEX_FILE, partial / INDEX_FILE)
    made_of = [
        {"checkpoint": str(folder), "weight": share}
        for folder, share in zip(folders, shares, strict=True)
    ]
    record = {"method": "spherical mean of each tensor", "checkpoints": made_of}
    (partial / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _flush(folder: Path) -> None:
    """Bring everything to the disk before the folder gets its name."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
