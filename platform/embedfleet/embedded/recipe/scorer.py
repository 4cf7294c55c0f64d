"""Weights of Qwen3's layers that score a document by its bag of words, to go on training from.

The first layer marks what comes after the prompt's `<Query` and `<Document`. In the second one a
document's token attends to the query's tokens of like content, and to a token of the prompt that
matches nothing: how much went to the query says whether the token is in it. The last one takes the
weighted mean of the query's and of the document's contents, and of these matches; its MLP
multiplies the two contents, component by component: silu(a)b + silu(-a)(-b) = ab.

    row of a token: [content (250) | match | sink | in document | in query | importance | 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.checkpoint.layout import EMBEDDING
from embedfleet.embedded.recipe.bag import Bag
from embedfleet.embedded.recipe.layers import TAKEN_SCALE, UNIMPORTANT, bag_weights
from embedfleet.messages import Role

__all__ = ["Words", "scorer_weights"]

_MATCH, _SINK, _DOCUMENT, _QUERY, _IMPORTANCE, _ONE = -6, -5, -4, -3, -2, -1
_NUM_RESERVED: Final = 6
_FLAG: Final = 4.0
_MARKER: Final = (1.6, -8.0, 0.1)
"""Flag, importance and one of the two words' rows."""
_GAIN: Final = 8.0
_STEADY: Final = 8.0
"""Queries and keys are this much larger. Their norms divide it out again, but a step of training,
which does not know their size, then turns them by as much less."""
_BIAS: Final = -9.0
_PRODUCT_SCALE: Final = 0.05
_MATCH_SCALE: Final = 6.0
_MATCH_GAIN: Final = 6.0
_FIRST_SLOW_PAIR: Final = 14
"""Of a head's rotary pairs; this one and later ones turn by less than half a radian in a text."""


@dataclass(frozen=True, slots=True)
class Words:
    """Ids of the tokens that mean something to the prompt.

    Attributes:
        start: Opens the prompt, and matches nothing.
        last: The prompt's last token, after which the answer is read.
        special: Added tokens.
    """

    document: int
    query: int
    start: int
    yes: int
    no: int
    last: int
    special: tuple[int, ...]


def scorer_weights(bag: Bag, config: ModelConfig, words: Words) -> dict[str, Tensor]:
    """Write a bag as a reranker.

    Args:
        bag: Of the model's vocabulary, two components narrower than the model.
        config: Four heads for queries and keys each, at least three layers.
        words: Of the vocabulary.

    Returns:
        float32 tensors by canonical name.
    """
    weights = bag_weights(bag, config, Role.RERANKER, words.last)
    _rows(weights[EMBEDDING], words)
    _mark(weights, config)
    _match(weights, "layers.1.self_attn.", config)
    last = f"layers.{config.num_layers - 1}."
    _take(weights, f"{last}self_attn.", config)
    _multiply(weights, f"{last}mlp.", config)
    for name in weights:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] *= _STEADY
    return weights


def _rows(table: Tensor, words: Words) -> None:
    """Give the prompt's words rows of their own; the flags' components are empty elsewhere."""
    table[:, [_MATCH, _SINK, _DOCUMENT, _QUERY]] = 0.0
    for token, flag in ((words.document, _DOCUMENT), (words.query, _QUERY)):
        table[token] = 0.0
        # So unimportant that its flag, which is larger than that of any other, does not draw the
        # attention of the last layer to it.
        table[token, [flag, _IMPORTANCE, _ONE]] = torch.tensor(_MARKER)
    for token in words.special:
        table[token, :_MATCH] = 0.0
        table[token, _IMPORTANCE] = UNIMPORTANT
    table[words.start, _SINK] = 4.0
    # The answer is read in one component alone: the two rows differ in no other.
    table[words.no] = table[words.yes]
    table[words.yes, _IMPORTANCE], table[words.no, _IMPORTANCE] = 1.0, -1.0
    table[words.last] = 0.0
    table[words.last, _IMPORTANCE] = _BIAS
    table[words.last, _ONE] = 1.0


def _mark(weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Let the first layer flag every token after each of the two words."""
    heads = _heads(weights, "layers.0.self_attn.", config)
    slow, slowest = config.head_dim // 2 - 1, config.head_dim - 1
    seen = _MARKER[0] * (config.hidden_size / sum(each**2 for each in _MARKER)) ** 0.5
    for head, flag in ((0, _DOCUMENT), (1, _QUERY)):
        for name in ("q", "k"):
            heads[name][head] *= 0.02
        heads["q"][head, slow, _ONE] = 1.0
        heads["k"][head, slow, flag] = 1.0
        heads["k"][head, slowest, _ONE] = 1.0
        heads["v"][head] = 0.0
        heads["v"][head, 0, flag] = 1.0
        weights["layers.0.self_attn.o_proj.weight"][flag, head * config.head_dim] = _FLAG / seen
    weights["layers.0.self_attn.q_norm.weight"][:] = 4.0


def _match(weights: dict[str, Tensor], layer: str, config: ModelConfig) -> None:
    """Let each token tell how much of it is in the query, by four slices of its content.

    As parts of unit vectors, a query's own token meets 0.77 of it, the sink 0.63, a document's own
    0.55 and a strange one of the query 0.4: what is in the query is above the sink, all else below.
    """
    heads, half = _heads(weights, layer, config), config.head_dim // 2
    flag, sink = half - 1, config.head_dim - 1  # the slowest pair
    places = [*range(_FIRST_SLOW_PAIR, half - 1), *range(half + _FIRST_SLOW_PAIR, 2 * half - 1)]
    output = torch.zeros(config.hidden_size, config.hidden_size)
    for name in "qkv":
        heads[name] *= 0.02 if name != "v" else 0.0
    for head in range(4):
        for i, place in enumerate(places):
            heads["q"][head, place, 4 * i + head] = 1.0
            heads["k"][head, place, 4 * i + head] = 1.0
        heads["q"][head, flag, _ONE] = 6.0
        heads["q"][head, sink, _ONE] = 6.8
        heads["k"][head, flag, _QUERY] = 1.5
        heads["k"][head, flag, _DOCUMENT] = -1.5
        heads["k"][head, sink, _SINK] = 1.0
        heads["v"][head, 0, _QUERY] = 1.0
        heads["v"][head, 0, _DOCUMENT] = -1.0
        output[_MATCH, head * config.head_dim] = 0.25
    weights[f"{layer}o_proj.weight"] = output
    weights[f"{layer}q_norm.weight"] = torch.full((config.head_dim,), _MATCH_GAIN)


def _take(weights: dict[str, Tensor], layer: str, config: ModelConfig) -> None:
    """Let two heads take the mean of the query's content, and two that of the document's."""
    heads, width, hidden = _heads(weights, layer, config), config.head_dim, config.hidden_size
    slow, slowest = width // 2 - 1, width - 1
    for name in ("q", "k"):
        heads[name] *= 0.02
    heads["v"][:] = 0.0
    output = torch.zeros(hidden, hidden)
    room = hidden - _NUM_RESERVED - 2 * width
    for head in range(4):
        of_document, half = divmod(head, 2)
        heads["k"][head, slow, _IMPORTANCE] = 1.0
        heads["k"][head, slowest, _ONE] = 1.0
        heads["k"][head, slow - 1, _DOCUMENT] = 1.0
        heads["k"][head, slow - 2, _QUERY] = 1.0
        heads["q"][head, slow, _ONE] = 1.0
        heads["q"][head, slow - 1, _ONE] = 2.0 if of_document else -2.0
        heads["q"][head, slow - 2, _ONE] = 0.0 if of_document else 2.0
        kept = min(width, room - half * width) if of_document else width
        for i in range(kept):
            heads["v"][head, i, half * width + i] = 1.0
            output[of_document * 2 * width + half * width + i, head * width + i] = TAKEN_SCALE
    heads["v"][3, -1, _MATCH] = 1.0  # the head that has room
    output[_IMPORTANCE, 4 * width - 1] = _MATCH_SCALE
    weights[f"{layer}o_proj.weight"] = output
    weights[f"{layer}q_norm.weight"] = torch.full((width,), _GAIN)


def _multiply(weights: dict[str, Tensor], layer: str, config: ModelConfig) -> None:
    """Let the MLP add up the products of both contents where the answer is read."""
    gate, up = weights[f"{layer}gate_proj.weight"], weights[f"{layer}up_proj.weight"]
    down = weights[f"{layer}down_proj.weight"]
    start = 2 * config.head_dim
    room = config.hidden_size - _NUM_RESERVED - start
    for i in range(room):
        for unit, sign in ((2 * i, 1.0), (2 * i + 1, -1.0)):
            gate[unit], up[unit] = 0.0, 0.0
            gate[unit, i] = sign
            up[unit, start + i] = sign
            down[_IMPORTANCE, unit] = _PRODUCT_SCALE


def _heads(weights: dict[str, Tensor], layer: str, config: ModelConfig) -> dict[str, Tensor]:
    """View a layer's projections by head: (heads, head_dim, hidden) each."""
    shape = (config.num_query_heads, config.head_dim, config.hidden_size)
    return {name: weights[f"{layer}{name}_proj.weight"].view(shape) for name in "qkv"}
