"""What a caller chooses about an engine, before the machine had its say.

`auto` is resolved into a concrete device and type once, when the engine loads.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EngineOptions"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run a model.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; auto takes the first GPU if there is one.
        dtype: `auto`, `float32`, `bfloat16` or `float16`; auto takes the fastest safe type.
        num_threads: CPU threads of the matrix products. None means every core the process may use.
        max_tokens: Longest sequence accepted, prefix included. None means the model's own limit.
    """

    device: str = "auto"
    dtype: str = "auto"
    num_threads: int | None = None
    max_tokens: int | None = None
