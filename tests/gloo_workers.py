"""One of two processes that train together: `python gloo_workers.py RANK FOLDER`.

Takes its rows of a batch that all know, steps once in each way, and leaves what it got in FOLDER.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from embedfleet.tuning.caching import Caching, cached_step
from embedfleet.tuning.gathering import gather_rows, share, whole_batch_loss
from embedfleet.tuning.losses import Contrast, ContrastiveSettings, reranking_loss

NUM_ROWS = 8
SHARES = (slice(0, 3), slice(3, 8))
DIMENSIONS = {4: 1.0, 8: 2.0}
SETTINGS = ContrastiveSettings(temperature=0.1)

_generator = torch.Generator().manual_seed(0)
QUERIES = torch.randn(NUM_ROWS, 5, generator=_generator)
POSITIVES = QUERIES + 0.7 * torch.randn(NUM_ROWS, 5, generator=_generator)
NEGATIVES = torch.randn(NUM_ROWS, 2, 5, generator=_generator)
MASK = torch.rand(NUM_ROWS, 2, generator=_generator) < 0.8
IDS = torch.tensor([1, 2, 3, 1, 4, 2, 5, 5])  # the same documents on both workers
LABELS = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0])


@dataclass(frozen=True)
class Rows:
    rows: Tensor


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 8))


def contrastive(own: slice) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """This worker's texts, and the loss of their vectors."""
    n = own.stop - own.start
    texts = torch.cat([QUERIES[own], POSITIVES[own], NEGATIVES[own].flatten(0, 1)])

    def loss(vectors: Tensor) -> Tensor:
        queries, positives, negatives = vectors.split([n, n, 2 * n])
        negatives = negatives.view(n, 2, -1)
        given = Contrast(queries, positives, negatives, MASK[own], IDS[own])
        return whole_batch_loss(given, SETTINGS, DIMENSIONS)

    return texts, loss


def reranking(own: slice) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    def loss(vectors: Tensor) -> Tensor:
        return share(reranking_loss(vectors[:, :2], LABELS[own]), own.stop - own.start)

    return QUERIES[own], loss


def gathered(own: slice) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A loss of all rows that every worker takes, of which each counts the mean."""

    def loss(vectors: Tensor) -> Tensor:
        rows = gather_rows(vectors.bfloat16().float())
        return (rows @ rows.T).tanh().mean()

    return QUERIES[own], loss


TASKS = {"contrastive": contrastive, "reranking": reranking, "gathered": gathered}


def run(
    name: str, wrapped: str, caching: dict[str, Any], own: slice
) -> tuple[Tensor, list[Tensor]]:
    """Step once; give the loss, averaged over workers, and the gradients."""
    net: Any = model()
    if wrapped == "ddp":
        net = DistributedDataParallel(net)
    if wrapped == "fsdp":
        fully_shard(net)
    texts, loss = TASKS[name](own)
    # Parts of three: other numbers of parts on each worker.
    parts = [Rows(rows) for rows in torch.randperm(len(texts)).split(3)]
    value = cached_step(lambda p: net(texts[p.rows]), parts, loss, Caching(module=net, **caching))
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    gradients = [p.grad.full_tensor() if wrapped == "fsdp" else p.grad for p in net.parameters()]
    return value, gradients


def alone() -> dict[str, Any]:
    """What one process with the whole batch gets."""
    return {name: run(name, "", {"cached": False}, slice(0, NUM_ROWS)) for name in TASKS}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    own = SHARES[rank]
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=len(SHARES))
    found = {name: run(name, "ddp", {}, own) for name in TASKS}
    found["contrastive kept"] = run("contrastive", "ddp", {"cached": False}, own)
    # The longest worker has 5 rows: 20 texts, 7 parts.
    found["contrastive sharded"] = run("contrastive", "fsdp", {"passes": 7}, own)
    dist.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
