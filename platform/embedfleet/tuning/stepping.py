"""One optimizer step: a batch through the model, its loss, gradients, and the weights moved.

A contrastive batch is computed whole or, where that would not fit, twice in parts with cached
gradients. Pairs of a reranker do not look at one another, so each part learns by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil
import torch
from torch import Tensor

from embedfleet.tuning.batches import (
    ContrastiveRows,
    MicroBatch,
    PairRows,
    TokenBatch,
    micro_batches,
)
from embedfleet.tuning.caching import Caching, cached_step
from embedfleet.tuning.contrast import Contrast
from embedfleet.tuning.gathering import whole_batch_loss
from embedfleet.tuning.losses import ContrastiveSettings, reranking_loss
from embedfleet.tuning.models import TrainedModel
from embedfleet.tuning.sections import CacheGradients, Dtype
from embedfleet.tuning.settings import EmbedderSettings, TuneSettings
from embedfleet.tuning.sharding import whole
from embedfleet.tuning.workers import Worker, average_gradients, greatest, mean

__all__ = ["Done", "Stepper", "learning_rate_share", "make_optimizer", "uncached_tokens"]

_MICRO_BATCH_TOKENS: Final = {"cpu": 2_048, "cuda": 16_384}
"""On a CPU what its caches hold is fastest; a GPU wants more work at once."""

_PROBE_TOKENS: Final = 32

_MEMORY_SHARE: Final = {"cpu": 0.35, "cuda": 0.6}
"""Of free memory: what the graphs of a batch may take before gradients are cached."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one step, before the weights moved.

    Attributes:
        padded_tokens: Tokens that passed through the model, padding included.
        cached: The batch was computed in parts, twice.
    """

    loss: float
    grad_norm: float
    padded_tokens: int
    cached: bool

    @property
    def finite(self) -> bool:
        """Whether weights can be moved by it."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Stepper:
    """Computes gradients of batches.

    Args:
        model: On its device.
        settings: Of the run.
        whole_tokens: Padded tokens of a batch up to which its graph is kept whole.
        worker: Which of several this is.
    """

    def __init__(
        self,
        model: TrainedModel,
        settings: TuneSettings,
        whole_tokens: int,
        worker: Worker | None = None,
    ) -> None:
        self.model = model
        self._worker = worker or Worker()
        self._settings = settings
        self._whole_tokens = whole_tokens
        self._trained = [each for each in model.parameters() if each.requires_grad]
        self._device = self._trained[0].device
        chosen = settings.batch.micro_batch_tokens
        self._part_tokens = chosen or _MICRO_BATCH_TOKENS[self._device.type]
        self._autocast = settings.precision is Dtype.BFLOAT16
        self._dimensions = _dimensions(settings, model)

    def gradients(self, batch: TokenBatch) -> Done:
        """Set the gradients of one batch, clipped to the largest norm allowed."""
        for parameter in self._trained:
            parameter.grad = None
        parts = [
            part.to(self._device) for part in micro_batches(batch.sequences, self._part_tokens)
        ]
        padded = sum(part.token_ids.numel() for part in parts)
        passes = self._greatest(len(parts))
        if isinstance(batch.rows, PairRows):
            loss, cached = self._learn_pairs(parts, batch.rows, passes), False
        else:
            rows = batch.rows
            # Where one worker runs the model twice, all have to.
            cached = self._greatest(padded) > self._whole_tokens
            caching = Caching(cached, passes=passes)
            loss = cached_step(
                self._encode, parts, lambda states: self._contrast(states, rows), caching
            )
        if not self._worker.sharded:  # what shards weights averages their gradients itself
            average_gradients(self._trained)
        norm = torch.nn.utils.clip_grad_norm_(
            self._trained, self._settings.optimizer.max_grad_norm, foreach=True
        )
        cached = cached and passes > 1
        return Done(float(mean(loss)), float(whole(norm)), padded, cached)

    def _greatest(self, own: int) -> int:
        """Return the greatest of all workers' numbers where they must run the model together.

        That is where weights are sharded: gathering a layer takes all of them. Otherwise workers
        meet in the loss and behind the gradients only, and each counts for itself.
        """
        return greatest(own, self._device) if self._worker.sharded else own

    def _encode(self, part: MicroBatch) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            output: Tensor = self.model(part.token_ids, part.last)
        return output.float()

    def _contrast(self, states: Tensor, rows: ContrastiveRows) -> Tensor:
        """Take the loss of all sequences' states: (s, hidden) to a scalar."""
        assert isinstance(self._settings, EmbedderSettings)  # who draws contrastive rows
        size, device = rows.num_queries, states.device
        some = bool(rows.negative_mask.any())
        vectors = Contrast(
            queries=states[:size],
            positives=states[size : 2 * size],
            negatives=states[rows.negatives.to(device)] if some else None,
            negative_mask=rows.negative_mask.to(device) if some else None,
            document_ids=rows.document_ids.to(device),
            negative_ids=rows.negative_ids.to(device) if some else None,
        )
        loss = self._settings.loss
        constants = ContrastiveSettings(loss.temperature, loss.margin)
        return whole_batch_loss(vectors, constants, self._dimensions)

    def _learn_pairs(self, parts: list[MicroBatch], rows: PairRows, passes: int) -> Tensor:
        """Add the gradients of pairs, part by part, and return the mean loss."""
        labels = rows.labels.to(self._device)
        total = torch.zeros((), device=self._device)
        runs = [*parts, *[parts[0]] * (passes - len(parts))]
        for number, part in enumerate(runs):
            loss = reranking_loss(self._encode(part), labels[part.rows])
            # The mean over workers is that over all pairs; what is repeated weighs nothing.
            own = len(part.rows) if number < len(parts) else 0
            share = loss * (own * self._worker.share.workers / rows.total)
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        return total


def make_optimizer(model: TrainedModel, settings: TuneSettings) -> torch.optim.AdamW:
    """Make AdamW over what is trained: no decay of vectors, the embedding table's own rate."""
    chosen = settings.optimizer
    groups: dict[tuple[float, float], list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = chosen.weight_decay if parameter.dim() > 1 else 0.0
            own_rate = chosen.embedding_learning_rate if "embed_tokens" in name else None
            rate = chosen.learning_rate if own_rate is None else own_rate
            groups.setdefault((rate, decay), []).append((name, parameter))
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in named], "lr": rate, "weight_decay": decay, "peak": rate}
            for (rate, decay), named in groups.items()
        ],
        betas=(chosen.beta1, chosen.beta2),
        fused=True,
    )


def learning_rate_share(step: int, num_steps: int, settings: TuneSettings) -> float:
    """Return a step's share of the highest learning rate: a line up, then a cosine down."""
    schedule = settings.schedule
    warmup = math.ceil(num_steps * schedule.warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    passed = (step - warmup) / max(1, num_steps - 1 - warmup)
    cosine = (1 + math.cos(math.pi * min(1.0, passed))) / 2
    return schedule.minimum_share + (1 - schedule.minimum_share) * cosine


def uncached_tokens(model: TrainedModel, settings: TuneSettings, device: str) -> int:
    """Tell how many padded tokens a batch may have before its gradients are cached.

    Measured on a small input, because checkpointing, adapters and types all change it.

    Args:
        model: On the CPU, and whole.
        settings: Of the run.
        device: Where it will be trained.
    """
    choice = settings.batch.cache_gradients
    if choice is not CacheGradients.AUTO:
        return 0 if choice is CacheGradients.ALWAYS else 2**62
    bfloat16 = settings.precision is Dtype.BFLOAT16
    few, many = (_kept_bytes(model, size, bfloat16) for size in (1, 5))
    # The difference: what is kept once, such as weights in another type, is no text's.
    bytes_per_token = max(1, (many - few) // (4 * _PROBE_TOKENS))
    if device == "cpu":
        free: int = psutil.virtual_memory().available
    else:
        # Gradients and two moments come on top of the weights, which are there in a moment.
        free = torch.cuda.mem_get_info(device)[0] - sum(p.nbytes for p in model.parameters()) * 4
    return max(0, int(free * _MEMORY_SHARE[device.partition(":")[0]] / bytes_per_token))


def _kept_bytes(model: TrainedModel, size: int, bfloat16: bool) -> int:
    """Measure what so many sequences keep for their gradients."""
    kept: dict[int, int] = {}
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    token_ids = torch.zeros((size, _PROBE_TOKENS), dtype=torch.int64)
    last = torch.full((size,), _PROBE_TOKENS - 1)
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        model(token_ids, last)
    return sum(kept.values())


def _dimensions(settings: TuneSettings, model: Any) -> Mapping[int, float]:
    """Return the weight of the loss by dimension; the model's own where none is named."""
    if isinstance(settings, EmbedderSettings) and settings.loss.matryoshka:
        return {each.dimension: each.weight for each in settings.loss.matryoshka}
    return {int(model.body.config.hidden_size): 1.0}
