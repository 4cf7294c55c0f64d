"""A checkpoint's stream of tensors becomes fused parameters, one layer at a time.

Fused matrices are allocated once and each tensor is written into its rows, so that loading needs
the weights once, not twice. What a layer looks like in the end is the decoder's business: it gets
each layer as soon as its last tensor arrived and may repack it before the next one.

Shape legend: h hidden, I intermediate, H query heads, G key/value heads, D head dimension.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.errors import CheckpointError

__all__ = ["RawLayer", "Weights", "collect_weights"]

L = TypeVar("L")
_LAYER_TENSOR = re.compile(r"layers\.(\d+)\.(.+)\.weight")
_TENSORS_PER_LAYER = 11


@dataclass(slots=True)
class RawLayer:
    """One layer's fused parameters in the compute type, on the compute device.

    Attributes:
        qkv: ((H + 2 G) D, h): all query heads, then keys, then values.
        output: (h, H D).
        gate_up: (2 I, h): the gate, then the up projection.
        down: (h, I).
        norms: `input`, `post` (h,), `q`, `k` (D,), in float32.
    """

    qkv: torch.Tensor
    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    norms: dict[str, torch.Tensor]
    num_missing: int = _TENSORS_PER_LAYER


@dataclass(frozen=True, slots=True)
class Weights(Generic[L]):
    """A whole model.

    Attributes:
        embedding: (vocabulary, h), in the checkpoint's own type where that is not the larger one.
        final_norm: (h,) float32.
        score_row: (h,) float32, `lm_head[yes] - lm_head[no]`; None for an embedder.
    """

    embedding: torch.Tensor
    layers: tuple[L, ...]
    final_norm: torch.Tensor
    score_row: torch.Tensor | None


class _Collector(Generic[L]):
    def __init__(
        self,
        config: ModelConfig,
        like: torch.Tensor,
        score_token_ids: tuple[int, int] | None,
        finish: Callable[[int, RawLayer], L],
    ) -> None:
        self._config = config
        self._like = like
        self._score_token_ids = score_token_ids
        self._finish = finish
        self._open: dict[int, RawLayer] = {}
        self._done: dict[int, L] = {}
        self._single: dict[str, torch.Tensor] = {}

    def take(self, name: str, tensor: torch.Tensor) -> None:
        match = _LAYER_TENSOR.fullmatch(name)
        if match is not None:
            self._take_layer_tensor(int(match[1]), match[2], tensor)
        elif name == "norm.weight":
            self._single["norm"] = tensor.to(self._like.device, torch.float32)
        elif name == "embed_tokens.weight":
            smaller = tensor.itemsize <= self._like.itemsize
            dtype = tensor.dtype if smaller else self._like.dtype
            self._single["embedding"] = tensor.to(self._like.device, dtype)
        head = "embed_tokens.weight" if self._config.tied_lm_head else "lm_head.weight"
        if name == head and self._score_token_ids is not None:
            yes, no = (tensor[token].float() for token in self._score_token_ids)
            self._single["score_row"] = (yes - no).to(self._like.device)

    def _take_layer_tensor(self, index: int, part: str, tensor: torch.Tensor) -> None:
        layer = self._open.setdefault(index, self._allocate()) if index not in self._done else None
        if layer is None:
            raise CheckpointError(f"layers.{index}.{part}.weight occurs twice in the checkpoint.")
        _destination(layer, part, self._config).copy_(tensor)
        layer.num_missing -= 1
        if layer.num_missing == 0:
            self._done[index] = self._finish(index, self._open.pop(index))

    def _allocate(self) -> RawLayer:
        c, new = self._config, self._like.new_empty
        heads = c.num_query_heads * c.head_dim
        keys = c.num_kv_heads * c.head_dim
        widths = {"input": c.hidden_size, "post": c.hidden_size, "q": c.head_dim, "k": c.head_dim}
        return RawLayer(
            qkv=new(heads + 2 * keys, c.hidden_size),
            output=new(c.hidden_size, heads),
            gate_up=new(2 * c.intermediate_size, c.hidden_size),
            down=new(c.hidden_size, c.intermediate_size),
            norms={name: new(width, dtype=torch.float32) for name, width in widths.items()},
        )

    def weights(self) -> Weights[L]:
        wanted = ["embedding", "norm"] + ["score_row"] * (self._score_token_ids is not None)
        absent = [name for name in wanted if name not in self._single]
        absent += [f"layers.{i}" for i in range(self._config.num_layers) if i not in self._done]
        if absent:
            raise CheckpointError(
                f"The checkpoint ended without {', '.join(absent)}: all tensors of "
                f"{self._config.num_layers} layers are needed. Fetch its files again."
            )
        return Weights(
            self._single["embedding"],
            tuple(self._done[i] for i in range(self._config.num_layers)),
            self._single["norm"],
            self._single.get("score_row"),
        )


def _destination(layer: RawLayer, part: str, config: ModelConfig) -> torch.Tensor:
    heads = config.num_query_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    inner = config.intermediate_size
    match part:
        case "self_attn.q_proj":
            return layer.qkv[:heads]
        case "self_attn.k_proj":
            return layer.qkv[heads : heads + keys]
        case "self_attn.v_proj":
            return layer.qkv[heads + keys :]
        case "self_attn.o_proj":
            return layer.output
        case "mlp.gate_proj":
            return layer.gate_up[:inner]
        case "mlp.up_proj":
            return layer.gate_up[inner:]
        case "mlp.down_proj":
            return layer.down
        case "input_layernorm":
            return layer.norms["input"]
        case "post_attention_layernorm":
            return layer.norms["post"]
        case "self_attn.q_norm" | "self_attn.k_norm":
            return layer.norms[part[-6]]
        case _:
            raise CheckpointError(f"{part} is not part of a Qwen3 layer.")


def collect_weights(
    config: ModelConfig,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    like: torch.Tensor,
    score_token_ids: tuple[int, int] | None,
    finish: Callable[[int, RawLayer], L],
) -> Weights[L]:
    """Consume a stream of named tensors.

    Args:
        config: The shape to allocate.
        tensors: Names without `model.`; shapes already checked.
        like: Any tensor of the compute type on the compute device.
        score_token_ids: The tokens of yes and no, for a reranker.
        finish: Makes a decoder's layer of index and parameters; may destroy the latter.

    Raises:
        CheckpointError: A tensor is missing, unknown or there twice.
    """
    collector = _Collector(config, like, score_token_ids, finish)
    for name, tensor in tensors:
        collector.take(name, tensor)
    return collector.weights()
