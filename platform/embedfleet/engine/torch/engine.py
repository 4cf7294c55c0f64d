"""The torch engine: loads a model, runs packed batches through it, answers in numpy.

Knows of layers only that they run in order. Calls may nest in the yield point because a batch
keeps all that changes in its own run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from embedfleet.batching.packing import PackedBatch
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.base import EngineInfo, YieldPoint
from embedfleet.engine.torch.device import Placement, cpu_features, resolve
from embedfleet.engine.torch.heads import final_states, finite
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.engine.torch.rotary import RotaryTable
from embedfleet.engine.torch.rows import RowDecoder
from embedfleet.engine.torch.split import halves
from embedfleet.engine.torch.tiled import TiledDecoder
from embedfleet.engine.torch.weights import RawLayer, Weights, collect_weights
from embedfleet.errors import EngineError, InvalidRequest, OutOfMemory, WrongRole
from embedfleet.messages import Float32Array, Role

__all__ = ["TorchEngine", "load_engine"]

_log = logging.getLogger(__name__)


class Decoder(Protocol):
    """The layers in the form a device runs fastest; layers and runs are its own types."""

    @property
    def kernels(self) -> dict[str, str]:
        """Chosen kernel by purpose."""
        ...

    def finish(self, index: int, raw: RawLayer) -> Any:
        """Make a layer of its parameters; may destroy them."""
        ...

    def start(self, batch: PackedBatch, weights: Weights[Any]) -> Any:
        """Begin a batch: its run holds everything that changes."""
        ...

    def layer(self, layer: Any, run: Any) -> None:
        """Advance a run by one layer that is not the last."""
        ...

    def last_layer(self, layer: Any, run: Any) -> torch.Tensor:
        """Finish a run: (num_sequences, hidden) before the final norm, pooled tokens only."""
        ...


@dataclass(frozen=True, slots=True)
class _Model:
    config: ModelConfig
    decoder: Decoder
    weights: Weights[Any]


class TorchEngine:
    """A loaded model. Fulfils the engine contract."""

    def __init__(
        self, info: EngineInfo, config: ModelConfig, decoder: Decoder, weights: Any
    ) -> None:
        self._info = info
        self._model: _Model | None = _Model(config, decoder, weights)

    @property
    def info(self) -> EngineInfo:
        """Facts that do not change while the engine lives."""
        return self._info

    def embed(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Pool every sequence's last token; see the contract."""
        self._expect(Role.EMBEDDER, "embed")
        return finite(self._states(batch, yield_point), "embedding")

    def score(self, batch: PackedBatch, yield_point: YieldPoint | None = None) -> Float32Array:
        """Score every sequence's last token; see the contract."""
        self._expect(Role.RERANKER, "score")
        score_row = self._loaded().weights.score_row
        if score_row is None:
            raise ValueError("This is a bug: a reranker was loaded without its score row.")
        return finite(torch.mv(self._states(batch, yield_point), score_row), "score")

    def close(self) -> None:
        """Free the device."""
        self._model = None
        if self._info.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _states(self, batch: PackedBatch, yield_point: YieldPoint | None) -> torch.Tensor:
        """Compute final states, in halves where the device has no room: (S, hidden) float32."""
        self._check(batch)
        with contextlib.suppress(torch.OutOfMemoryError):
            return self._forward(batch, yield_point)
        # Retried outside the handler: its traceback would keep the failed run's memory alive.
        torch.cuda.empty_cache()
        if batch.num_sequences == 1:
            raise OutOfMemory(
                f"{self._info.device} has no room for one sequence of {batch.num_tokens} tokens. "
                "Lower max_tokens, or use a device with more memory.",
                retry_after_seconds=1.0,
            )
        _log.warning(
            "%s ran out of memory at %d sequences of %d tokens together: running halves",
            self._info.device,
            batch.num_sequences,
            batch.num_tokens,
        )
        return torch.cat([self._states(half, yield_point) for half in halves(batch)])

    @torch.inference_mode()
    def _forward(self, batch: PackedBatch, yield_point: YieldPoint | None) -> torch.Tensor:
        model = self._loaded()
        run = model.decoder.start(batch, model.weights)
        *body, last = model.weights.layers
        for layer in body:
            model.decoder.layer(layer, run)
            if yield_point is not None:
                yield_point()
        pooled = model.decoder.last_layer(last, run)
        return final_states(pooled, model.weights.final_norm, model.config.rms_norm_eps)

    def _check(self, batch: PackedBatch) -> None:
        longest = int(batch.positions.max()) + 1
        if longest > self._info.max_tokens:
            raise InvalidRequest(
                f"A sequence has {longest} tokens; this model takes at most "
                f"{self._info.max_tokens}. Truncate it.",
                field="token_ids",
            )
        vocab_size = self._loaded().config.vocab_size
        smallest, largest = int(batch.token_ids.min()), int(batch.token_ids.max())
        if smallest < 0 or largest >= vocab_size:
            wrong = smallest if smallest < 0 else largest
            raise InvalidRequest(
                f"Token id {wrong} is outside the vocabulary of {vocab_size}. "
                "Use this model's own tokenizer.",
                field="token_ids",
            )

    def _expect(self, role: Role, method: str) -> None:
        if self._info.role is not role:
            raise WrongRole(
                f"{method} needs a model served as {role}; this one is served as "
                f"{self._info.role}. Ask another model."
            )

    def _loaded(self) -> _Model:
        if self._model is None:
            raise EngineError("The engine is closed. Load the model again.")
        return self._model


def load_engine(
    role: Role,
    config: ModelConfig,
    tensors: Iterable[tuple[str, torch.Tensor]],
    options: EngineOptions,
    *,
    score_token_ids: tuple[int, int] | None = None,
) -> TorchEngine:
    """Place a model on a device.

    The tensors come as names without `model.` and CPU tensors of checked shapes, and are consumed
    one at a time. A reranker, and only a reranker, needs the token ids of yes and no.

    Raises:
        InvalidRequest: The options ask for what the machine or the model cannot do.
        CheckpointError: A tensor is missing, unknown or there twice.
    """
    if (score_token_ids is not None) != (role is Role.RERANKER):
        raise ValueError("This is a bug: score_token_ids belong to a reranker, and only there.")
    placement = resolve(options, config)
    max_tokens = config.max_tokens if options.max_tokens is None else options.max_tokens
    if not 1 <= max_tokens <= config.max_tokens:
        raise InvalidRequest(
            f"max_tokens is {max_tokens}; this model takes 1 to {config.max_tokens}. "
            "Leave it out for the most.",
            field="max_tokens",
        )
    _use_threads(placement.num_threads)
    decoder = _decoder(config, placement)
    with torch.inference_mode():
        weights = collect_weights(
            config,
            tensors,
            like=torch.empty(0, dtype=placement.dtype, device=placement.device),
            score_token_ids=score_token_ids,
            finish=decoder.finish,
        )
    info = EngineInfo(
        role=role,
        device=str(placement.device),
        dtype=placement.dtype_name,
        kernels=decoder.kernels,
        weights_bytes=_weights_bytes(config, weights, placement),
        native_dimension=config.hidden_size,
        max_tokens=max_tokens,
        # On a GPU both would use one stream and twice the memory.
        parallel=placement.device.type == "cpu",
    )
    return TorchEngine(info, config, decoder, weights)


def _decoder(config: ModelConfig, placement: Placement) -> Decoder:
    rotary = RotaryTable(config.head_dim, config.rope_theta, placement.device)
    if placement.device.type == "cpu" and placement.dtype == torch.float32:
        return TiledDecoder(config, rotary)
    prepacked = placement.device.type == "cpu" and cpu_features().fast_bfloat16
    return RowDecoder(config, rotary, placement, prepacked)


def _weights_bytes(config: ModelConfig, weights: Weights[Any], placement: Placement) -> int:
    heads = (2 * config.num_query_heads + 2 * config.num_kv_heads) * config.head_dim
    layer = config.hidden_size * (heads + 3 * config.intermediate_size)
    return weights.embedding.nbytes + config.num_layers * layer * placement.dtype.itemsize


def _use_threads(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    # Torch lets this be set only before its first use; nothing here starts work on that pool.
    with contextlib.suppress(RuntimeError):
        torch.set_num_interop_threads(1)
