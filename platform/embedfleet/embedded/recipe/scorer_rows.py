"""Rows of the scorer's tokens: what each component tells before the first layer.

    row: [content (254) | code (29) | `Part` (13)]

Codes are random and tell tokens apart; contents tell what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import torch
from torch import Tensor

from embedfleet.embedded.recipe.layers import UNIMPORTANT

__all__ = [
    "CODE",
    "CONTENT",
    "FLAG",
    "LENGTH",
    "OPENING_ONE",
    "STATE",
    "Part",
    "Words",
    "token_rows",
]


class Part(IntEnum):
    """Components of a token's row after its content and its code."""

    CONSTANT = 283
    INSTRUCTION = 284
    STRENGTH = 285
    SINK = 286
    DOCUMENT = 287
    QUERY = 288
    MATCH = 289
    GATHERS = 290
    ANSWER = 291
    LAST = 292
    RARITY = 293
    IMPORTANCE = 294
    ONE = 295


CONTENT: Final = 254
"""Components that tell what a token means, of the embedder's states as well."""
CODE: Final = slice(CONTENT, Part.CONSTANT)
STATE: Final = [*range(CONTENT), Part.IMPORTANCE, Part.CONSTANT]
"""Where the components of the embedder's states are here."""
_WIDTH: Final = Part.ONE + 1
LENGTH: Final = math.sqrt(_WIDTH)
"""Of a row. Norms divide by it, so that a row's components are as they are written here."""
_CONTENT_LENGTH: Final = 16.0
_CODE_LENGTH: Final = 2.65
FLAG: Final = 2.0
OPENING_ONE: Final = (LENGTH + FLAG) / FLAG
"""Constant of the words that open a part: as large as their flag is too large, so that differences
of the two stay zero."""
_NEVER: Final = -5.0
"""Logarithm of a rarity below any token's: words of the prompt do not match."""
_CONFIDENCE: Final = 0.24
"""Scales logits, so that scores of what is not alike still differ."""
_BIAS: Final = -15.0
"""Puts scores of what is relevant near one half."""


@dataclass(frozen=True, slots=True)
class Words:
    """Ids of the tokens that mean something to the prompt.

    Attributes:
        instruction: Opens the instruction.
        start: Opens the prompt and its turns; what looks for nothing attends to it.
        suffix: Ends the prompt; the answer is read after it.
        gathers: The one of the suffix that takes the query's content.
        rests: The one of the suffix that stands for a query that is not like the document.
        empty: Those of the prompt that say nothing.
        special: Added tokens.
    """

    instruction: int
    query: int
    document: int
    start: int
    suffix: tuple[int, ...]
    gathers: int
    rests: int
    empty: tuple[int, ...]
    yes: int
    no: int
    special: tuple[int, ...]


def token_rows(contents: Tensor, query: Tensor, rarity: Tensor, words: Words) -> Tensor:
    """Return the embedding table: contents as long as each other, and all that is said of them.

    Args:
        contents: The embedder's table: (vocab, its hidden size).
        query: What its first layer asks with, but for positions: (heads, head_dim, `CONTENT`).
        rarity: Inverse document frequencies: (vocab,).
        words: Of the vocabulary.
    """
    table = torch.zeros(len(contents), _WIDTH)
    lengths = _norms(contents[:, :CONTENT])[:, None]
    table[:, STATE] = contents * _CONTENT_LENGTH / lengths
    table[:, Part.ONE] = 1.0
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(len(table), CODE.stop - CODE.start, generator=generator)
    codes *= _CODE_LENGTH / _norms(codes)[:, None]
    table[:, CODE] = codes
    strength = (table[:, :CONTENT] @ query.transpose(1, 2)).norm(dim=2).mean(0)
    table[:, Part.STRENGTH] = strength / strength.median()
    table[:, Part.RARITY] = rarity.log()

    for token in (*words.empty, *words.special):
        table[token, :CONTENT] = 0.0
        table[token, CODE] *= LENGTH / _CODE_LENGTH
        table[token, Part.IMPORTANCE] = UNIMPORTANT
        table[token, Part.RARITY] = _NEVER
    opening = (words.instruction, words.query, words.document)
    for token, flag in zip(opening, (Part.INSTRUCTION, Part.QUERY, Part.DOCUMENT), strict=True):
        one, importance = OPENING_ONE, -OPENING_ONE
        _set(table, token, {flag: LENGTH, Part.ONE: one, Part.IMPORTANCE: importance})
    resting = {Part.ONE: 1.0, Part.IMPORTANCE: UNIMPORTANT}
    _set(table, words.start, {Part.SINK: LENGTH, Part.ONE: 1.0})
    _set(table, words.gathers, {Part.GATHERS: LENGTH, **resting})
    _set(table, words.rests, {Part.ANSWER: LENGTH, **resting})
    _set(table, words.suffix[-1], {Part.LAST: LENGTH, Part.ANSWER: _BIAS, **resting})
    for token in (words.start, words.gathers, words.rests, words.suffix[-1]):
        # They match themselves, and so nothing else.
        table[token, CODE] = codes[token]
    # The answer is read in one component alone: the two rows differ in no other.
    table[words.no] = table[words.yes]
    table[words.yes, Part.ANSWER], table[words.no, Part.ANSWER] = _CONFIDENCE, -_CONFIDENCE
    return table


def _set(table: Tensor, token: int, components: Mapping[Part, float]) -> None:
    table[token] = 0.0
    for component, value in components.items():
        table[token, component] = value


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = rows.norm(dim=-1)
    return norms.clamp_min(1e-6)
