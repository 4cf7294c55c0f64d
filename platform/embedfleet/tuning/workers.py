"""What workers that train together say to one another; one process by itself says nothing.

Gradients are averaged once a step, after the last micro-batch, in buckets. That is the whole of
data parallelism here, so that cached gradients and plain ones go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from embedfleet.errors import EmbedfleetError
from embedfleet.tuning.batches import Share

__all__ = ["Worker", "agreed", "average_gradients", "greatest", "mean"]

_BUCKET_NUMBERS: Final = 1 << 24

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Worker:
    """Which of the processes that train together this is, and what it computes on.

    Attributes:
        device: `cpu`, `cuda` or `cuda:1`.
        sharded: Each worker holds a part of the weights.
    """

    share: Share = field(default_factory=Share)
    device: str = "cpu"
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Whether it writes what the run leaves."""
        return self.share.rank == 0


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over workers."""
    if not _several():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([each.grad for each in parameters if each.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def mean(value: Tensor) -> Tensor:
    """Return the mean over workers of a scalar."""
    if not _several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def greatest(number: int, device: torch.device) -> int:
    """Return the greatest of the workers' numbers."""
    if not _several():
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def agreed(make: Callable[[], T], leads: bool) -> T:
    """Let the leading worker make a value, and give it, or its error, to all of them."""
    if not _several():
        return make()
    told: list[T | EmbedfleetError | None] = [None]
    if leads:
        try:
            told = [make()]
        except EmbedfleetError as error:
            told = [error]
    dist.broadcast_object_list(told)
    if isinstance(told[0], EmbedfleetError):
        raise told[0]
    return told[0]  # type: ignore[return-value]  # the leader told


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(each.numel() for each in bucket) + gradient.numel() > _BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
