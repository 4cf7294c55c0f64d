"""One step over a batch of any size in the memory of one part of it, by cached gradients.

A loss that compares every text with every other cannot be split. But its gradient reaches the model
only through the texts' vectors: so compute all vectors without a graph, the loss and its gradient
at the vectors, then each part's vectors once more, with a graph, and feed that gradient in (Gao et
al., arXiv 2101.06983). The second pass draws the same random numbers as the first. Knows neither
texts nor losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Caching", "Part", "cached_step"]


class Part(Protocol):
    """A part of a batch that passes through the model at once."""

    @property
    def rows(self) -> Tensor:
        """Places of its texts in the batch: (n,) int64; parts share out all places."""


@dataclass(frozen=True, slots=True)
class Caching:
    """How a step is computed.

    Attributes:
        cached: False keeps every part's graph until the loss is known: one pass instead of two,
            in the memory of the whole batch. A batch of one part always takes one pass.
        module: Whose gradients are exchanged between workers: only with the last part, if it has
            `no_sync`, as DistributedDataParallel has.
        passes: Parts that every worker must run where weights are sharded, since gathering them
            takes all workers; missing ones repeat the first part and weigh nothing.
    """

    cached: bool = True
    module: nn.Module | None = None
    passes: int = 0


P = TypeVar("P", bound=Part)


def cached_step(
    encode: Callable[[P], Tensor],
    parts: Sequence[P],
    loss: Callable[[Tensor], Tensor],
    caching: Caching | None = None,
) -> Tensor:
    """Add the gradients of one batch to the parameters.

    Args:
        encode: One part's vectors or scores, (n, ...), in the order of its rows.
        parts: At least one.
        loss: From what all parts gave, in the batch's order, to a scalar. Called once.
        caching: How.

    Returns:
        The loss, without a graph. If it is not finite, nor are the gradients.
    """
    caching = caching or Caching()
    runs = [*parts, *[parts[0]] * (caching.passes - len(parts))]
    order = torch.cat([part.rows for part in parts]).argsort()
    if len(runs) == 1 or not caching.cached:
        return _one_pass(encode, runs, loss, order)
    states, outputs = [], []
    for run in runs:
        states.append(_RandomState())
        with torch.no_grad():
            outputs.append(encode(run))
    sizes = [len(output) for output in outputs]
    whole = _joined(outputs, order).detach().requires_grad_()
    value = loss(whole)
    (gradient,) = torch.autograd.grad(value, whole)
    # Back into the order of the parts; what is repeated gets no gradient.
    stored = torch.zeros((sum(sizes), *whole.shape[1:]), dtype=whole.dtype, device=whole.device)
    stored[order.to(whole.device)] = gradient
    for index, (run, state, share) in enumerate(
        zip(runs, states, torch.split(stored, sizes), strict=True)
    ):
        with _exchange(caching.module, index == len(runs) - 1), state.replayed():
            torch.autograd.backward(encode(run), share)
    return value.detach()


def _one_pass(
    encode: Callable[[P], Tensor],
    runs: Sequence[P],
    loss: Callable[[Tensor], Tensor],
    order: Tensor,
) -> Tensor:
    outputs = [encode(run) for run in runs]
    value = loss(_joined(outputs, order))
    # What is repeated has a gradient of zero, but every worker walks back through it.
    repeated = torch.cat(outputs)[len(order) :]
    (value + 0.0 * repeated.sum() if len(repeated) else value).backward()  # type: ignore[no-untyped-call]
    return value.detach()


def _joined(outputs: Sequence[Tensor], order: Tensor) -> Tensor:
    """Bring what parts gave into the batch's order; what was repeated is left out."""
    return torch.cat(list(outputs))[order.to(outputs[0].device)]


def _exchange(module: Any, last: bool) -> AbstractContextManager[None]:
    if last or not hasattr(module, "no_sync"):
        return nullcontext()
    quiet: AbstractContextManager[None] = module.no_sync()
    return quiet


class _RandomState:
    """Where the random numbers of the CPU and of the current GPU stand when it is made."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        self._gpu = [torch.cuda.get_rng_state(device) for device in self._devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw the same numbers again; afterwards go on where the first pass ended."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in zip(self._devices, self._gpu, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
