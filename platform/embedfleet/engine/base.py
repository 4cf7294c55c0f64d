"""What every engine promises, whatever runs underneath.

A batch goes in packed, one row a sequence comes out, in the order it went in. Engines know
nothing of text, requests, dimensions or futures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from embedfleet.batching.packing import PackedBatch
from embedfleet.messages import Float32Array, Role

__all__ = ["Engine", "EngineInfo", "YieldPoint"]

YieldPoint = Callable[[], None]
"""Called by an engine between layers. It may run another, smaller batch on the same engine before
it returns (an interactive query overtaking a bulk step), or raise to abandon the batch."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs, for logs, `doctor` and `GetModel`.

    Attributes:
        device: Such as `cpu` or `cuda:0`.
        dtype: Type of the matrix products, such as `bfloat16`.
        kernels: Chosen kernel by purpose, such as `{"attention": "sdpa", "linear": "onednn"}`.
        weights_bytes: Memory the parameters take.
        native_dimension: Width of the hidden state.
        max_tokens: Longest sequence the engine accepts, prefix included.
        parallel: Whether calls may come from two threads at a time.
    """

    role: Role
    device: str
    dtype: str
    kernels: dict[str, str]
    weights_bytes: int
    native_dimension: int
    max_tokens: int
    parallel: bool


class Engine(Protocol):
    """A loaded model. Calls may nest in the yield point; see `EngineInfo.parallel` for threads."""

    @property
    def info(self) -> EngineInfo:
        """Facts that do not change while the engine lives."""
        ...

    def embed(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Pool every sequence's last token after the final norm.

        Returns:
            (num_sequences, native_dimension), neither sliced nor normalised.

        Raises:
            NonFiniteResult: A component is NaN or infinite.
            OutOfMemory: The batch does not fit, even split.
        """
        ...

    def score(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Score every sequence as logit(yes) - logit(no) at its last token.

        Returns:
            (num_sequences,), before the sigmoid.

        Raises:
            NonFiniteResult: A score is NaN or infinite.
            OutOfMemory: The batch does not fit, even split.
        """
        ...

    def close(self) -> None:
        """Free the device. The engine cannot be used again."""
        ...
