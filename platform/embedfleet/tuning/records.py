"""What a run is, kept in its folder, so that no other run goes on in its place.

Settings that change what is learnt must be the same when a run goes on; how many workers there
are, how often it is saved and where its data lies may change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import TrainingStopped
from embedfleet.tuning.settings import TuneSettings

__all__ = ["RECORD_FILE", "RunRecord", "load_record", "refuse_other_run", "settings_of"]

RECORD_FILE: Final = "run.json"
_FREE: Final = frozenset({"workers", "checkpoints", "threads", "output.folder"})
_FREE_OF_DATA: Final = frozenset({"path"})


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's identity and what was measured for it once.

    Attributes:
        role: Embedder or reranker.
        settings: In the spelling of tune.yaml.
        data: Digest of all examples.
        weights: Digest of the weights that training began from.
        num_steps: Of the whole run.
        whole_tokens: Padded tokens of a batch up to which it is computed at once.
    """

    role: str
    settings: Mapping[str, Any]
    data: str
    weights: str
    num_steps: int
    whole_tokens: int

    def to_json(self) -> str:
        """Write it for people and for the next start."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def load_record(folder: Path) -> RunRecord | None:
    """Read the record of a run's folder; None if there is no run in it.

    Raises:
        TrainingStopped: There is one that cannot be read.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        return None
    try:
        return RunRecord(**json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise TrainingStopped(
            f"{file} is not the record of a run ({error}). Choose another output.folder.",
            field="output.folder",
        ) from error


def refuse_other_run(folder: Path, before: RunRecord, now: RunRecord) -> None:
    """Refuse to go on in the folder of another run.

    Raises:
        TrainingStopped: It names the first difference.
    """
    identity = (("role", "role"), ("weights", "model.source's weights"), ("data", "the data"))
    for name, spoken in identity:
        if getattr(before, name) != getattr(now, name):
            raise TrainingStopped(
                f"output.folder {folder} holds a run in which {spoken} is "
                f"{getattr(before, name)}; now it is {getattr(now, name)}. Restore that, or "
                "choose another output.folder.",
                field="output.folder",
            )
    for path, was, becomes in _differences(before.settings, now.settings, ""):
        raise TrainingStopped(
            f"output.folder {folder} holds a run with {path} {_shown(was)}; now it is "
            f"{_shown(becomes)}. Restore that to go on, or choose another output.folder.",
            field=path,
        )


def settings_of(settings: TuneSettings) -> Mapping[str, Any]:
    """Return settings as tune.yaml spells them."""
    content: Mapping[str, Any] = settings.model_dump(mode="json", by_alias=True)
    return content


def _differences(was: Any, becomes: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if path in _FREE or (path.startswith("data[") and path.rpartition(".")[2] in _FREE_OF_DATA):
        return
    if isinstance(was, dict) and isinstance(becomes, dict):
        for key in [*was, *(key for key in becomes if key not in was)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(was.get(key), becomes.get(key), inner)
    elif isinstance(was, list) and isinstance(becomes, list) and len(was) == len(becomes):
        for index, (one, other) in enumerate(zip(was, becomes, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif was != becomes:
        yield path, was, becomes


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value is not None else "unset"
