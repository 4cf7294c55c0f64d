"""Whether checkpoints are of one model: only such can be merged.

Told by headers, configurations and tokenizers alone, before any tensor is read; the first
difference is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from embedfleet.checkpoint.companions import check_companions
from embedfleet.checkpoint.config import CONFIG_FILE, read_config
from embedfleet.checkpoint.layout import canonical_name
from embedfleet.checkpoint.shards import INDEX_FILE, StoredTensor, stored_tensors
from embedfleet.errors import CheckpointError
from embedfleet.messages import Role
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE

__all__ = ["agreeing_tensors", "companion_files"]

_COMPANIONS: Final = ("*.json", "*.jinja", "merges.txt", "vocab.json", "*_Pooling/config.json")
_OF_ONE_RUN: Final = frozenset({INDEX_FILE, "merge.json", "run.json", "training.json"})
"""What describes one checkpoint's weights, not the model."""


def agreeing_tensors(folders: Sequence[Path]) -> Mapping[str, tuple[StoredTensor, ...]]:
    """Find every tensor in every checkpoint.

    Returns:
        By the first checkpoint's name of the tensor, in its order of storage: where it lies in
        each. A prefix `model.` and the sharding may differ.

    Raises:
        CheckpointError: A checkpoint is damaged, or differs from the first.
    """
    first, *others = folders
    for folder in folders:
        check_companions(folder, Role.RERANKER)  # refuses adapters
    _check_config(first, others)
    _check_tokenizer(first, others)
    mine = stored_tensors(first)
    theirs = [_by_name(folder) for folder in others]
    for folder, found in zip(others, theirs, strict=True):
        _check_tensors(first, mine, folder, found)
    return {
        tensor.name: (tensor, *(found[canonical_name(tensor.name)] for found in theirs))
        for tensor in mine
    }


def companion_files(folder: Path) -> Iterator[Path]:
    """List what stands beside the weights and belongs to the model: configuration, tokenizer."""
    for pattern in _COMPANIONS:
        for file in sorted(folder.glob(pattern)):
            if file.is_file() and not (file.parent == folder and file.name in _OF_ONE_RUN):
                yield file


def _check_config(first: Path, others: Sequence[Path]) -> None:
    mine = asdict(read_config(first))
    for folder in others:
        theirs = asdict(read_config(folder))
        for name, value in mine.items():
            if value != theirs[name]:
                raise _differ(f"{CONFIG_FILE}: {name}", (first, value), (folder, theirs[name]))


def _check_tokenizer(first: Path, others: Sequence[Path]) -> None:
    mine = _digest(first / TOKENIZER_FILE)
    for folder in others:
        theirs = _digest(folder / TOKENIZER_FILE)
        if mine != theirs:
            raise _differ(f"SHA-256 of {TOKENIZER_FILE}", (first, mine[:16]), (folder, theirs[:16]))


def _check_tensors(
    first: Path,
    mine: Sequence[StoredTensor],
    folder: Path,
    theirs: Mapping[str, StoredTensor],
) -> None:
    for tensor in mine:
        other = theirs.get(canonical_name(tensor.name))
        if other is None:
            raise _missing(tensor.name, folder, first)
        if tensor.shape != other.shape:
            raise _differ(
                f"shape of tensor {tensor.name}",
                (first, list(tensor.shape)),
                (folder, list(other.shape)),
            )
        if tensor.dtype != other.dtype:
            raise _differ(
                f"type of tensor {tensor.name}", (first, tensor.dtype), (folder, other.dtype)
            )
    extra = theirs.keys() - {canonical_name(tensor.name) for tensor in mine}
    if extra:
        raise _missing(min(extra), first, folder)


def _by_name(folder: Path) -> dict[str, StoredTensor]:
    return {canonical_name(tensor.name): tensor for tensor in stored_tensors(folder)}


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}). Copy the file that was published with the "
            "weights."
        ) from error


def _differ(what: str, one: tuple[Path, object], other: tuple[Path, object]) -> CheckpointError:
    return CheckpointError(
        f"{what} is {one[1]} in {one[0]} and {other[1]} in {other[0]}: these are not checkpoints "
        "of one model. Merge those of one training run."
    )


def _missing(name: str, where: Path, there: Path) -> CheckpointError:
    return CheckpointError(
        f"tensor {name} of {there} is missing in {where}: these are not checkpoints of one model. "
        "Merge those of one training run."
    )
