"""Pairs of texts that people scored, and how far a model's cosines put them in the same order.

Spearman's rank correlation, ties at their mean rank, as benchmarks of semantic similarity have it
(SemEval STS). Files hold one pair a line: three tab-separated columns text_a, text_b, score with
that header, or JSON objects with those fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.errors import InvalidRequest
from embedfleet.evaluation.lines import Line, json_lines, tab_lines
from embedfleet.messages import Float32Array

__all__ = ["SPEARMAN", "Pairs", "cosines", "read_pairs", "resampled_spearman", "spearman"]

SPEARMAN: Final = "spearman"
_FIELDS: Final = ("text_a", "text_b", "score")
_BLOCK_DRAWS: Final = 2_097_152

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Texts in pairs, and how similar people found them; only the order of scores counts."""

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: Values


def read_pairs(file: Path) -> Pairs:
    """Read pairs from a .jsonl or .tsv file.

    Raises:
        InvalidRequest: A line is not a pair, or there are too few to have an order.
    """
    if file.suffix not in (".jsonl", ".tsv"):
        raise InvalidRequest(
            f"{file} is neither .jsonl nor .tsv. Write pairs as one of them: {', '.join(_FIELDS)}.",
            field="similarity",
        )
    lines = list(json_lines(file)) if file.suffix == ".jsonl" else _columns(file)
    read = [(_text(line, "text_a"), _text(line, "text_b"), _score(line)) for line in lines]
    left, right, scores = zip(*read, strict=True) if read else ((), (), ())
    if len(set(scores)) < 2:
        raise InvalidRequest(
            f"{file} holds {len(read)} pairs with {len(set(scores))} different scores; a "
            "correlation needs at least two. Add pairs.",
            field="similarity",
        )
    return Pairs(file.stem, left, right, np.array(scores, np.float64))


def cosines(left: Float32Array, right: Float32Array) -> Values:
    """Give the cosine of each pair of rows, (n,)."""
    one, other = (each.astype(np.float64) for each in (left, right))
    products = (one * other).sum(axis=1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(products / lengths)


def spearman(found: Values, scores: Values) -> float:
    """Correlate the ranks of two series, (n,) each; 0 where one of them has no order."""
    return float(_correlations(found, scores, np.ones((1, len(scores))))[0])


def resampled_spearman(
    found: Values, scores: Values, seed: tuple[int, ...], num_resamples: int
) -> Values:
    """Draw pairs again and again, and correlate each draw: (num_resamples,)."""
    size = len(scores)
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK_DRAWS // size)
    results = []
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        drawn = random.integers(0, size, (count, size)) + np.arange(count)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        results.append(_correlations(found, scores, counts.astype(np.float64)))
    return np.concatenate(results)


def _correlations(found: Values, scores: Values, counts: Values) -> Values:
    """Correlate ranks where each pair stands `counts` times, (num_draws, n): (num_draws,)."""
    one, other = _ranks(found, counts), _ranks(scores, counts)
    mean = (counts.sum(axis=1, keepdims=True) + 1) / 2
    one, other = one - mean, other - mean
    together = (counts * one * other).sum(axis=1)
    spread = np.sqrt((counts * one * one).sum(axis=1) * (counts * other * other).sum(axis=1))
    return np.asarray(np.divide(together, spread, out=np.zeros_like(together), where=spread > 0))


def _ranks(values: Values, counts: Values) -> Values:
    """Give mean ranks from 1, of each value in each draw."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return np.asarray(ranks[:, group])


def _columns(file: Path) -> list[Line]:
    header, *lines = list(tab_lines(file)) or [Line(file, 1, {})]
    names = tuple(header.fields.values())
    if names != _FIELDS:
        raise header.error("header", f"is {names}, not {_FIELDS}", "Name the columns in this order")
    for line in lines:
        if len(line.fields) != len(_FIELDS):
            raise line.error("columns", f"are {len(line.fields)}, not 3", "Mend the line")
    return [
        Line(file, line.number, dict(zip(_FIELDS, line.fields.values(), strict=True)))
        for line in lines
    ]


def _text(line: Line, field: str) -> str:
    text = line.text(field).strip()
    if not text:
        raise line.error(field, "is empty", "A pair needs two texts")
    return text


def _score(line: Line) -> float:
    value = line.fields.get("score")
    try:
        score = float(value) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise line.error("score", f"is {value!r}, not a finite number", "Write a number")
    return score
