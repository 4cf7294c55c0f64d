"""What a batched call does with one batch: the part that needs no channel.

The blocking and the asyncio client differ only in how they wait for the answers.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from embedfleet.client.batches import Batch
from embedfleet.client.transport import Method

__all__ = ["Work"]

Part = TypeVar("Part", covariant=True)


class Work(Protocol[Part]):
    """One call: how a batch becomes a request and its answer a part of the result."""

    @property
    def method(self) -> Method:
        """The RPC that takes a batch."""

    @property
    def model(self) -> str:
        """Name or alias of the model that computes it."""

    def encode(self, batch: Batch) -> Any:
        """Write one batch as a request message."""

    def decode(self, response: Any, batch: Batch) -> Part:
        """Read one batch's results; raises an item's error unless errors are kept."""
