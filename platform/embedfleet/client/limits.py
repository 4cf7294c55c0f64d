"""How many items a model takes in one request, where that is fewer than a batch holds.

An operator may lower it at any time, so it is learned from a refusal and not asked for beforehand.
Pure: whoever sends requests asks the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from embedfleet.client.batches import Batch
from embedfleet.errors import InvalidRequest

__all__ = ["ItemLimits"]

_LISTS = ("items", "documents", "texts")
"""Fields of requests whose number of entries a model bounds."""


class ItemLimits:
    """What is known of each model, by the name that it was called by."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def fit(self, model: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Cut each batch into those that the model is known by then to take."""
        for batch in batches:
            most = self._known.get(model, len(batch.items))
            for first in range(0, len(batch.items), most):
                yield Batch(batch.start + first, batch.items[first : first + most])

    def is_news(self, model: str, batch: Batch, refusal: InvalidRequest) -> bool:
        """Whether the fleet has to be asked how much fits; raises a refusal of anything else."""
        if refusal.field not in _LISTS or len(batch.items) == 1:
            raise refusal
        return len(batch.items) <= self._known.get(model, len(batch.items))

    def learn(self, model: str, batch: Batch, refusal: InvalidRequest, most: int) -> None:
        """Keep what the fleet says; raises the refusal where a smaller batch is no answer to it."""
        if not 0 < most < len(batch.items):
            raise refusal
        self._known[model] = most
