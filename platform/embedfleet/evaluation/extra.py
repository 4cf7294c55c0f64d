"""Packages that only evaluation needs: imported on first use, and named where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from embedfleet.errors import Unsupported

__all__ = ["needed"]


def needed(module: str) -> Any:
    """Import a package of the extra `evaluate`.

    Raises:
        Unsupported: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise Unsupported(
            f"Evaluation needs {module}, which is not installed: it comes with the extra "
            "`evaluate`: pip install 'embedfleet[evaluate]'."
        ) from error
