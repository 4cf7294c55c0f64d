"""What the safetensors files of a checkpoint hold, read from their headers alone.

The format is a length, a JSON header and the tensors' bytes end to end. Every offset is checked
against the file's size, so that a cut-off download is found before anything is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import CheckpointError

__all__ = ["ITEM_SIZES", "StoredTensor", "read_header", "stored_tensors", "weight_files"]

ITEM_SIZES: Final[Mapping[str, int]] = {"F32": 4, "BF16": 2, "F16": 2}
"""Element types that are loaded, and their bytes."""

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
_MAX_HEADER_BYTES: Final = 100_000_000
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        name: As stored, prefix included.
        dtype: As the format spells it, such as `BF16`.
        start: Offset of the first byte in the file.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


def weight_files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """Return the checkpoint's weight files, and the index's map from tensor to file if it has one.

    Raises:
        CheckpointError: There are none, they are pickles, or the index names a missing file.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        weight_map = _weight_map(index)
        files = [folder / name for name in sorted(set(weight_map.values()))]
        for file in files:
            if file.parent != folder or not file.is_file():
                raise CheckpointError(
                    f"{index} names {file.name}, which is not beside it. Download that file too."
                )
        return files, weight_map
    single = folder / SINGLE_FILE
    if single.is_file():
        return [single], None
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds weights only as {', '.join(pickles)}: a pickle can run any code when "
            "it is read, so only safetensors are loaded. Convert it where you trust it, with "
            "transformers' save_pretrained."
        )
    raise CheckpointError(
        f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}. Point at the folder of a "
        "checkpoint in Hugging Face layout."
    )


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """List every tensor of a checkpoint in the order of storage.

    Raises:
        CheckpointError: A file is damaged, or files and index disagree.
    """
    files, weight_map = weight_files(folder)
    tensors = [tensor for file in files for tensor in read_header(file)]
    if weight_map is None:
        return tensors
    for tensor in tensors:
        promised = weight_map.get(tensor.name)
        if promised != tensor.file.name:
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name} is there, but {INDEX_FILE} "
                + (f"says {promised}" if promised else "does not list it")
                + ". Files of two checkpoints may be mixed: download all of them again."
            )
    absent = set(weight_map) - {tensor.name for tensor in tensors}
    if absent:
        name = min(absent)
        raise CheckpointError(
            f"{folder / weight_map[name]}: tensor {name} is missing, though {INDEX_FILE} says it "
            "is there. Download the file again."
        )
    return tensors


def read_header(file: Path) -> list[StoredTensor]:
    """List the tensors of one file in the order of storage.

    Raises:
        CheckpointError: The file is cut off, or its header does not describe its bytes.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise _damaged(file, f"its header claims {length:,} bytes of {size:,}")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_unique)
        except ValueError as error:
            raise _damaged(file, f"its header is not readable ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not an object")
    header.pop("__metadata__", None)
    tensors = [_entry(file, 8 + length, name, entry) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.num_bytes))
    end = 8 + length
    for tensor in tensors:
        if tensor.start != end:
            raise _damaged(file, f"tensor {tensor.name} does not start where the one before ends")
        end += tensor.num_bytes
    if end != size:
        raise _damaged(file, f"its tensors need {end:,} bytes and it has {size:,}")
    return tensors


def _entry(file: Path, base: int, name: str, entry: Any) -> StoredTensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, f"tensor {name} has a malformed entry") from error
    if dtype not in ITEM_SIZES:
        raise CheckpointError(
            f"{file}: tensor {name} is {dtype}; {', '.join(ITEM_SIZES)} are loaded. Use a "
            "checkpoint that is not quantized."
        )
    if min(shape, default=0) < 0 or end - start != math.prod(shape) * ITEM_SIZES[dtype]:
        raise _damaged(file, f"tensor {name}, {dtype} {list(shape)}, has {end - start:,} bytes")
    return StoredTensor(name, file, dtype, shape, base + start, end - start)


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = json.loads(index.read_bytes(), object_pairs_hook=_unique)["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not an index of tensors ({error}). Download it again."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON would let pass in silence: the same name twice."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is listed twice")
    return dict(pairs)


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}. Download it again.")
