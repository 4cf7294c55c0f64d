"""Files beside the weights that would change results if they were passed over.

An adapter that is not applied, a dense layer after pooling, or another pooling than the last
token's: each gives a vector that looks right and is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import CheckpointError
from embedfleet.messages import Role

__all__ = ["check_companions"]

_ADAPTER: Final = "adapter_config.json"
_MODULES: Final = "modules.json"
_KNOWN_MODULES: Final = {"transformer", "pooling", "normalize"}


def check_companions(folder: Path, role: Role) -> None:
    """Refuse a checkpoint that asks for more than its weights and last-token pooling.

    Raises:
        CheckpointError: It holds an adapter, or an embedder's modules are others.
    """
    if (folder / _ADAPTER).is_file():
        raise CheckpointError(
            f"{folder / _ADAPTER}: this is an adapter, and adapters are not applied. Merge it into "
            "its base model and save the whole."
        )
    if role is not Role.EMBEDDER or not (folder / _MODULES).is_file():
        return
    for module in _read(folder / _MODULES):
        kind = str(module.get("type", "")).rpartition(".")[2].lower()
        if kind not in _KNOWN_MODULES:
            raise CheckpointError(
                f"{folder / _MODULES}: module {module.get('type')} is not implemented; known are "
                f"{', '.join(sorted(_KNOWN_MODULES))}. Leaving it out would change every vector."
            )
        file = folder / str(module.get("path", "")) / "config.json"
        modes = _pooling_modes(_read(file)) if kind == "pooling" else ["lasttoken"]
        if modes != ["lasttoken"]:
            raise CheckpointError(
                f"{file}: pooling is {', '.join(modes) or 'unset'}; only lasttoken is implemented, "
                "as in Qwen3-Embedding."
            )


def _pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """Return the modes in use: one by name in newer files, a flag for each in older ones."""
    if "pooling_mode" in config:
        return [str(config["pooling_mode"])]
    prefix = "pooling_mode_"
    return [key.removeprefix(prefix) for key, on in config.items() if on and key.startswith(prefix)]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not readable ({error}). Download it again.") from error
