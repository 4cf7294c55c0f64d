"""Weights of Qwen3's layers that score as an embedder and BM25 do together.

Causal layers read prompt, query and document in one text, so all of an embedder has to be done
again inside of it, part by part:

1. Mark what comes after the words that open instruction, query and document.
2. Do the embedder's first layer, each part for itself; and let a document's token tell how much of
   what is like it, up to itself, is in the query: half where it is there once in each, less where
   the document repeats it, nothing where the query has it not.
3. Do the embedder's last layer, which takes the mean of contents: one token of the prompt's end
   takes that of the query, the last one that of the document.
4. Compare the two, four slices of them as an attention between the two tokens; and add up the
   rarities of matched tokens, as attention from the last token to them. Both go to the answer.

What is done again is not quite what the embedder does; `distillation.py` trains it.

A token's row is in `scorer_rows.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from embedfleet.checkpoint.config import ModelConfig
from embedfleet.checkpoint.layout import EMBEDDING, expected_tensors
from embedfleet.embedded.recipe.scorer_rows import (
    CODE,
    CONTENT,
    FLAG,
    LENGTH,
    OPENING_ONE,
    STATE,
    Part,
    Words,
    token_rows,
)
from embedfleet.messages import Role

__all__ = ["SLICES", "copied_parts", "scorer_weights"]

Weights = Mapping[str, Tensor]

_HEADS: Final = 4
"""Of the embedder; the last head is the scorer's own."""
_OWN: Final = _HEADS
_OWN_UNITS: Final = 2
"""Of the third layer's transform: the scorer's own."""
_SLOWEST, _SLOW, _STILL = (31, 63), (30, 62), (29, 61)
"""Rotary pairs of a head that turn by less than a hundredth over a text."""
_CODE_PLACES: Final = [*range(16, 31), *range(48, 62)]
"""Of a head: pairs that turn by less than a tenth in a hundred tokens."""
_COMPARED: Final = [*range(31), *range(32, 63)]
"""Of a head: all but the slowest pair."""
SLICES: Final = [range(head, _HEADS * len(_COMPARED), _HEADS) for head in range(_HEADS)]
"""Components of contents that are compared, by head."""

_MIXED: Final = 1.26
"""Scales what the embedder's first layer adds to contents, whose lengths differ there."""
_FULL_MATCH: Final = 2.0

_MARK_GAIN: Final = 6.0
_READ_GAIN: Final = 5.0
_APART: Final = 0.35
"""Share of `_READ_GAIN` that keeps parts from each other."""
_GATHER_GAIN: Final = 21.0
_ELSEWHERE: Final = 0.3
_COMPARE_GAIN: Final = 7.5
_BESIDE: Final = (0.9, 40.0, 120.0)
"""What is beside contents where they are compared: of the last token, of the two that it may attend
to, and of all others, whose contents are so diluted."""
_COMMON: Final = 12.0
"""Logit that a full match adds."""
_OTHER_PART: Final = 60.0
"""Logit that tokens lack which are not the document's."""
_SINK_LOGIT: Final = 6.8
"""Of nothing: so large that matches beside it add up."""
_RARITY_POWER: Final = 1.25
"""Of an inverse document frequency: what a match weighs."""
_ALIKE, _UNLIKE = 1 / 2.6, -1 / 9.1
"""What a head that compares reads of the token that stands for the query, and of the third."""
_SIMILARITY: Final = 4.0
_OVERLAP: Final = 47.0
"""Weights, in the answer, of each head that compares and of all matches."""
_OUTWEIGHS: Final = 100.0
_STEADY: Final = 50_000.0
"""Of components of the last token's row: what they add to it, in its norms, is nearly all of it."""
_UNTRAINED: Final = 0.05
"""Of what units read that write nothing until they are trained."""


def scorer_weights(
    embedder: Weights, rarity: Tensor, embedder_config: ModelConfig, config: ModelConfig,
    words: Words,
) -> dict[str, Tensor]:  # fmt: skip
    """Write an embedder and rarities of tokens as a reranker.

    Args:
        embedder: Two layers of four heads, by canonical name; the last one takes means.
        rarity: Inverse document frequencies: (vocab,).
        embedder_config: Of the embedder.
        config: Four layers, a head more, and rows with every `Part`.
        words: Of the vocabulary.

    Returns:
        float32 tensors by canonical name.
    """
    weights = {
        name: torch.ones(shape) if len(shape) == 1 else torch.zeros(shape)
        for name, shape in expected_tensors(config, Role.RERANKER).items()
    }
    first, second, third, last = (_Layer(weights, i, config) for i in range(4))
    old = [_Layer(embedder, i, embedder_config) for i in range(2)]
    query = old[0].q[..., :CONTENT].clone()
    query[:, [*_SLOWEST, *_SLOW]] = 0.0
    weights[EMBEDDING] = token_rows(embedder[EMBEDDING], query, rarity, words)
    _mark(first)
    _read(second, old[0], weights[EMBEDDING])
    _match(second)
    _gather(third, old[1])
    _compare(last, embedder["norm.weight"], words, config.rope_theta)
    _add_up(last)
    _steady(third, last, weights["norm.weight"])
    return weights


def copied_parts(config: ModelConfig) -> dict[str, Tensor]:
    """Mark with ones what stands for the embedder, of the weights of all layers but the last."""
    shapes = expected_tensors(config, Role.RERANKER).items()
    last = f"layers.{config.num_layers - 1}."
    marks = {
        name: torch.zeros(shape)
        for name, shape in shapes if name.startswith("layers.") and not name.startswith(last)
    }  # fmt: skip
    for number in range(config.num_layers - 1):
        layer = _Layer(marks, number, config)
        free = slice(_OWN_UNITS if number == 2 else 0, None)
        layer.gate[free, STATE] = layer.up[free, STATE] = 1.0
        layer.down[STATE, free] = 1.0
        layer.norms[1][STATE] = 1.0
        if number == 0:
            continue
        layer.norms[0][STATE] = 1.0
        for each in (layer.q, layer.k, layer.v) if number == 1 else (layer.k, layer.v):
            each[:_HEADS][..., STATE] = 1.0
        layer.out[STATE, :_HEADS] = 1.0
    return {name: mark for name, mark in marks.items() if mark.any()}


class _Layer:
    """Views of a layer's weights; projections by head: (heads, head_dim, hidden)."""

    def __init__(self, weights: Weights, number: int, config: ModelConfig) -> None:
        at = f"layers.{number}."
        shape = (config.num_query_heads, config.head_dim, config.hidden_size)
        self.q, self.k, self.v = (
            weights[f"{at}self_attn.{name}_proj.weight"].view(shape) for name in "qkv"
        )
        out = weights[f"{at}self_attn.o_proj.weight"]
        self.out = out.view(config.hidden_size, config.num_query_heads, config.head_dim)
        self.q_norm = weights[f"{at}self_attn.q_norm.weight"]
        self.k_norm = weights[f"{at}self_attn.k_norm.weight"]
        self.norms = (
            weights[f"{at}input_layernorm.weight"],
            weights[f"{at}post_attention_layernorm.weight"],
        )
        self.gate, self.up, self.down = (
            weights[f"{at}mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
        )


def _mark(layer: _Layer) -> None:
    """Flag what comes after the three words: each token looks for them and else finds nothing."""
    seen = LENGTH**2 / math.sqrt(LENGTH**2 + 2 * OPENING_ONE**2)
    for head, flag in enumerate((Part.DOCUMENT, Part.QUERY, Part.INSTRUCTION)):
        layer.q[head, _SLOWEST[0], Part.ONE] = 1.0
        layer.k[head, _SLOWEST[0], flag] = 1.0
        layer.k[head, _SLOWEST[0], Part.ONE] = -0.2
        layer.v[head, 0, flag] = 1.0
        layer.out[flag, head, 0] = FLAG / seen
    layer.q_norm[:] = _MARK_GAIN
    generator = torch.Generator().manual_seed(1)
    for each in (layer.gate, layer.up):
        noise = torch.randn(len(each), len(STATE), generator=generator)
        each[:, STATE] = _UNTRAINED * noise


def _read(layer: _Layer, old: _Layer, table: Tensor) -> None:
    """Do the embedder's first layer, with each token attending to its own part alone.

    Queries get a component that no key has, so that their norms leave the embedder's logits as they
    were under a larger gain, which the other head needs.
    """
    _take_norms(layer, old)
    gain = float(old.q_norm.mean() * old.k_norm.mean())
    layer.q_norm.copy_(old.q_norm * _READ_GAIN / old.q_norm.mean())
    layer.k_norm.copy_(old.k_norm / old.k_norm.mean())
    rows = table / table.square().mean(1, keepdim=True).sqrt() * layer.norms[0]
    beside = (_READ_GAIN / gain) ** 2 - 1
    for head in range(_HEADS):
        q, k = layer.q[head], layer.k[head]
        q[:, STATE] = old.q[head]
        k[:, STATE] = old.k[head]
        q[[*_SLOWEST, *_SLOW]] = 0.0
        k[[*_SLOWEST, *_SLOW]] = 0.0
        of_query, of_key = (float((rows @ each.T).norm(dim=1).median()) for each in (q, k))
        q[_SLOW[0], Part.STRENGTH] = of_query * math.sqrt(beside * (1 - _APART**2))
        apart = of_query * math.sqrt(beside) * _APART / FLAG
        for place, flag in zip(_SLOWEST, (Part.DOCUMENT, Part.INSTRUCTION), strict=True):
            k[place, Part.ONE], k[place, flag] = of_key, -of_key / FLAG
            q[place, flag] = -apart
        q[_SLOWEST[1], Part.DOCUMENT] = apart
        _take_over(layer, old, head, _MIXED)
    _transform(layer, old, 0, _MIXED)


def _take_norms(layer: _Layer, old: _Layer) -> None:
    for norm, other in zip(layer.norms, old.norms, strict=True):
        norm[STATE] = other


def _take_over(layer: _Layer, old: _Layer, head: int, scale: float = 1.0) -> None:
    layer.v[head][:, STATE] = old.v[head]
    layer.out[STATE, head] = scale * old.out[:, head]


def _transform(layer: _Layer, old: _Layer, first: int, scale: float = 1.0) -> None:
    """Copy what the embedder computes of single states, but for the units that say least."""
    said = old.gate.norm(dim=1) * old.up.norm(dim=1) * old.down.norm(dim=0)
    units = said.argsort(descending=True)[: len(layer.gate) - first]
    layer.gate[first:, STATE] = old.gate[units]
    layer.up[first:, STATE] = old.up[units]
    layer.down[STATE, first:] = scale * old.down[:, units]


def _match(layer: _Layer) -> None:
    """Let a token attend to tokens of its code, and tell which share of them is the query's."""
    codes = torch.eye(CODE.stop - CODE.start)
    layer.q[_OWN, _CODE_PLACES, CODE] = codes
    layer.k[_OWN, _CODE_PLACES, CODE] = codes
    layer.q[_OWN, _SLOWEST[0], Part.ONE] = -1.0
    layer.k[_OWN, _SLOWEST[0], Part.ONE] = 1.0
    layer.k[_OWN, _SLOWEST[0], Part.QUERY] = -1 / FLAG
    layer.v[_OWN, 0, Part.QUERY] = 1 / FLAG
    layer.v[_OWN, 0, Part.DOCUMENT] = -1 / FLAG
    layer.out[Part.MATCH, _OWN, 0] = _FULL_MATCH


def _gather(layer: _Layer, old: _Layer) -> None:
    """Let one token take the mean of the query's content, and the last one that of the document.

    The embedder's final token asks for importance, in the slowest pair. Whatever else stands in the
    text attends to the prompt's start, which has no content.
    """
    _take_norms(layer, old)
    gain = float(old.q_norm.mean() * old.k_norm.mean())
    layer.q_norm.copy_(old.q_norm * _GATHER_GAIN / old.q_norm.mean())
    layer.k_norm.copy_(old.k_norm / old.k_norm.mean())
    asks = gain / _GATHER_GAIN
    elsewhere = math.sqrt(1 - asks**2)
    for head in range(_HEADS):
        q, k = layer.q[head], layer.k[head]
        k[:, STATE] = old.k[head]
        k[[*_SLOW, *_STILL]] = 0.0
        for place, inside in zip(
            _SLOW, ({Part.DOCUMENT: 1}, {Part.INSTRUCTION: 1, Part.DOCUMENT: -1}), strict=True
        ):
            k[place, Part.ONE] = _ELSEWHERE
            for flag, sign in inside.items():
                k[place, flag] = -sign * _ELSEWHERE / FLAG
        for place, token in zip(_SLOW, (Part.LAST, Part.GATHERS), strict=True):
            q[_SLOWEST[0], token] = asks
            q[place, token] = -elsewhere
            q[_STILL[0], token] = -1 / LENGTH
        q[_STILL[0], Part.ONE] = 1.0
        k[_STILL[0], Part.SINK] = 1.0
        _take_over(layer, old, head)
    # More than half a match is the query's repetition. silu(40x) / 40 is max(x, 0), nearly.
    steep = 40.0
    layer.gate[0, Part.MATCH], layer.gate[0, Part.ONE] = steep / _FULL_MATCH, -steep / 2
    layer.up[0, Part.ONE] = 1.0
    layer.down[Part.MATCH, 0] = -1.1 * _FULL_MATCH / steep
    _transform(layer, old, _OWN_UNITS)


def _compare(layer: _Layer, final_norm: Tensor, words: Words, rope_theta: float) -> None:
    """Let the last token attend to the query's, as much as the two are alike, or else to a third.

    Positions of the three are always as far apart, so keys are turned beforehand by what their
    distance will turn them back.
    """
    of_last, of_two, of_others = _BESIDE
    distance = len(words.suffix) - 1 - words.suffix.index(words.gathers)
    for head in range(_HEADS):
        components = SLICES[head]
        layer.q[head, _COMPARED, components] = final_norm[components]
        layer.k[head] = _turned(layer.q[head], distance, rope_theta)
        layer.q[head, _SLOWEST[0], Part.LAST] = of_last
        layer.k[head, _SLOWEST[0], Part.GATHERS] = of_two
        layer.k[head, _SLOWEST[0], Part.ANSWER] = of_two
        layer.k[head, _SLOWEST[1], Part.ONE] = of_others
        layer.v[head, 0, Part.GATHERS] = _ALIKE
        layer.v[head, 0, Part.ANSWER] = _UNLIKE
        layer.out[Part.ANSWER, head, 0] = _SIMILARITY
    layer.q_norm[:] = _COMPARE_GAIN


def _turned(rows: Tensor, distance: int, rope_theta: float) -> Tensor:
    """Turn a head's rows (head_dim, hidden) as rotary positions turn them over a distance."""
    half = len(rows) // 2
    angles = distance * rope_theta ** (-torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    low, high = rows[:half], rows[half:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin])


def _add_up(layer: _Layer) -> None:
    """Let the last token attend to what matches, more to what is rare, and else to the start.

    A large constant beside a small logit makes the norm of keys leave the logit as it is.
    """
    place, beside = _SLOWEST[0], _SLOW[0]
    layer.q[_OWN, place, Part.LAST] = 1.0
    key = layer.k[_OWN, place]
    key[Part.RARITY] = _RARITY_POWER
    # What the query has once and the document for the first time is near one half.
    key[Part.MATCH] = _COMMON / 0.45 / _FULL_MATCH
    key[Part.DOCUMENT] = _OTHER_PART / FLAG
    key[Part.ONE] = -_COMMON - _OTHER_PART
    key[Part.SINK] = (_SINK_LOGIT + _COMMON) / LENGTH
    layer.k[_OWN, beside, Part.ONE] = math.sqrt(len(layer.q_norm)) * _COMPARE_GAIN
    layer.v[_OWN, 0, Part.ONE] = 1.0
    layer.v[_OWN, 0, Part.SINK] = -1 / LENGTH
    layer.out[Part.ANSWER, _OWN, 0] = _OVERLAP


def _steady(third: _Layer, last: _Layer, final_norm: Tensor) -> None:
    """Let the norm before the answer divide by nearly the same for every document.

    It divides by the length of the last token's row, and so by that of the document's contents. A
    unit makes one component outweigh all others, so that the next layer's norm makes it a constant;
    of that, a unit there makes one that outweighs them before the answer. silu(x) is x, nearly.
    Nothing else reads these two components from there on.
    """
    third.gate[1, Part.LAST] = third.up[1, Part.LAST] = 1.0
    third.down[Part.INSTRUCTION, 1] = _OUTWEIGHS
    last.gate[0, Part.INSTRUCTION] = last.up[0, Part.INSTRUCTION] = 1.0
    last.down[Part.STRENGTH, 0] = _STEADY / LENGTH**2
    final_norm[Part.ANSWER] = _STEADY / LENGTH
