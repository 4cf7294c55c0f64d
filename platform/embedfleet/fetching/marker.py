"""The file that says a folder holds a whole model: written last, read before anything is served.

It stands beside the model's own files and holds what was found out while fetching. What is not yet
whole lies in a folder of its own, so that half a model is never taken for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from embedfleet.durable import sync
from embedfleet.errors import CheckpointError

__all__ = ["STAGING", "Fetched", "cached", "read_marker", "write_marker"]

STAGING: Final = ".embedfleet-fetching"
"""Folder inside the model's folder in which files are gathered until all of them are right."""

_MARKER: Final = ".embedfleet-cache.json"


class Fetched(BaseModel):
    """A whole model.

    Attributes:
        identity: Which files were asked for, as one line: source and commit.
        num_bytes: Of all files.
        revision: Commit of a hub source; empty for others.
        weights_digest: As the contract has it.
        tokenizer_digest: SHA-256 of `tokenizer.json`.
        files: SHA-256 by path inside the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    num_bytes: int
    revision: str
    weights_digest: str
    tokenizer_digest: str
    files: dict[str, str]


def cached(folder: Path) -> Path:
    """Give a folder whose model is whole; asks nobody.

    Raises:
        CheckpointError: It is missing, or still being fetched into.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder here: the volume of the ModelCache is not mounted. Look at "
            "the pod's volumes, and whether the ModelCache is Cached."
        )
    if (folder / STAGING).exists() and read_marker(folder) is None:
        raise CheckpointError(
            f"{folder} is not fetched to the end: {STAGING} is there and {_MARKER} is not. Wait "
            "until the ModelCache is Cached, or run embedfleet fetch again."
        )
    return folder


def read_marker(folder: Path) -> Fetched | None:
    """Read what a folder holds; None if it holds no whole model.

    Raises:
        CheckpointError: The marker is not one.
    """
    file = folder / _MARKER
    try:
        return Fetched.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CheckpointError(
            f"{file} is not readable ({error.error_count()} errors). Empty the folder and fetch "
            "again."
        ) from error


def write_marker(folder: Path, fetched: Fetched) -> None:
    """Say that a folder is whole, at once or not at all."""
    new = folder / f"{_MARKER}.part"
    new.write_text(fetched.model_dump_json(indent=1) + "\n")
    sync(new)
    new.replace(folder / _MARKER)
    sync(folder)
