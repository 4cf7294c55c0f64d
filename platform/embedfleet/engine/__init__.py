"""Engines: packed token ids in, one row a sequence out; and whole models without a server.

    from embedfleet.engine import load_embedder
    vectors = load_embedder("Qwen/Qwen3-Embedding-0.6B").embed(["a text"], "DOCUMENT")

Names load on first use: importing this package alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedfleet.engine.local import (
        LocalEmbedder,
        LocalReranker,
        load_embedder,
        load_reranker,
    )
    from embedfleet.engine.torch.options import EngineOptions

__all__ = ["EngineOptions", "LocalEmbedder", "LocalReranker", "load_embedder", "load_reranker"]

_HOMES = {"EngineOptions": "embedfleet.engine.torch.options"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "embedfleet.engine.local")), name)
