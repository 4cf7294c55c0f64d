"""Which examples a step learns from: a function of the settings, the seed and the step alone.

One batch has one source, one task and one language. Within a group no example comes again before
all others came, and no text stands twice in a batch where another order avoids it. Resuming needs
nothing but the number of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.corpus import Corpus, Group
from embedfleet.tuning.settings import TuneSettings

__all__ = ["Draw", "Plan", "plan_batches"]

Int64Array = npt.NDArray[np.int64]

_SCHEDULE, _ORDER, _POSITIVES = range(3)
"""Streams of random numbers that do not touch one another."""

_REPAIRS: Final = 12
_KEPT_EPOCHS: Final = 64


@dataclass(frozen=True, slots=True)
class Draw:
    """One step's examples.

    Attributes:
        rows: (n,) int64: which examples.
        positives: (n,) int64: which positive of each.
        epoch: How often the group was passed before.
    """

    rows: Int64Array
    positives: Int64Array
    group: Group
    epoch: int


class Plan:
    """Batches of every step. Made by `plan_batches`.

    Attributes:
        num_steps: Steps of the whole run.
        group_steps: (groups,) int64: how many of them each group has.
    """

    def __init__(self, corpus: Corpus, size: int, seed: int, group_steps: Int64Array) -> None:
        self._corpus, self._size, self._seed = corpus, size, seed
        self.group_steps = group_steps
        self.num_steps = int(group_steps.sum())
        schedule = np.repeat(np.arange(len(group_steps)), group_steps)
        np.random.default_rng([seed, _SCHEDULE]).shuffle(schedule)
        self._schedule = schedule
        self._turns = _turns(schedule, len(group_steps))
        # An epoch's order is asked for once a step, by steps of all groups in turn.
        self._epoch = lru_cache(maxsize=_KEPT_EPOCHS)(self._ordered)

    def draw(self, step: int) -> Draw:
        """Return the examples of a step, from 0 on."""
        number = int(self._schedule[step])
        group = self._corpus.groups[number]
        size = min(self._size, len(group.rows))
        epoch, turn = divmod(int(self._turns[step]), len(group.rows) // size)
        rows, positives = self._epoch(number, epoch)
        part = slice(turn * size, (turn + 1) * size)
        return Draw(rows[part], positives[part], group, epoch)

    def _ordered(self, number: int, epoch: int) -> tuple[Int64Array, Int64Array]:
        """Order a group's examples for one epoch, and choose a positive of each."""
        corpus, group = self._corpus, self._corpus.groups[number]
        size = min(self._size, len(group.rows))
        order = np.random.default_rng([self._seed, _ORDER, number, epoch])
        rows = order.permutation(group.rows)
        starts = corpus.positive_starts[rows]
        counts = corpus.positive_starts[rows + 1] - starts
        chosen = np.random.default_rng([self._seed, _POSITIVES, number, epoch])
        positives = (chosen.random(len(rows)) * counts).astype(np.int64)
        texts = np.stack((corpus.query_hashes[rows], corpus.positive_hashes[starts + positives]))
        moved = _apart(texts.astype(np.int64), size, order)
        return rows[moved], positives[moved]


def plan_batches(corpus: Corpus, settings: TuneSettings) -> Plan:
    """Plan a run's batches.

    Groups of n batches are sampled by n^(1/temperature), times their weight. A group of fewer
    examples than a batch has smaller batches; what is left of an epoch, less than one batch, is
    left out, and is other examples each time.

    Raises:
        InvalidRequest: A group has too few examples to tell an answer from others.
    """
    least = max(2, settings.workers.count)
    for group in corpus.groups:
        if len(group.rows) < least:
            raise InvalidRequest(
                f"{corpus.where(int(group.rows[0]))}: {len(group.rows)} of its source have task "
                f"{group.task} and language {group.language}; a batch has one of each, and needs "
                f"at least {least} examples. Add some, or give the entry of data one task."
            )
    size = settings.batch.size
    # Whole batches, so that epochs come out even where nothing is weighted.
    counts = np.array([max(1, len(group.rows) // size) for group in corpus.groups], np.float64)
    steps = settings.schedule.steps
    if steps is None:
        steps = int(counts.sum()) * (settings.schedule.epochs or 1)
    weights = np.array([group.weight for group in corpus.groups])
    weights *= counts ** (1 / settings.sampling.temperature)
    return Plan(corpus, size, settings.seed, _shares(weights, steps))


def _shares(weights: npt.NDArray[np.float64], total: int) -> Int64Array:
    """Split a number of steps by weights, the largest remainders rounded up."""
    exact = weights / weights.sum() * total
    shares: Int64Array = np.floor(exact).astype(np.int64)
    missing = total - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares


def _turns(schedule: Int64Array, num_groups: int) -> Int64Array:
    """Number each step among those of its own group."""
    turns: Int64Array = np.empty_like(schedule)
    for number in range(num_groups):
        own = np.flatnonzero(schedule == number)
        turns[own] = np.arange(len(own))
    return turns


def _apart(texts: Int64Array, size: int, order: np.random.Generator) -> Int64Array:
    """Return places in another order, in which no batch holds a text twice, where it can be.

    Args:
        texts: (kinds, n): texts of each example; two of a kind must not meet.
        size: Of a batch.
        order: Chooses what is swapped.
    """
    places = np.arange(texts.shape[1])
    if len(places) < 2 * size:
        return places
    batches = np.arange(len(places)) // size
    for _ in range(_REPAIRS):
        again = np.zeros(len(places), bool)
        for kind in texts:
            again |= _repeated(kind[places], batches)
        doubled = np.flatnonzero(again)
        if not len(doubled):
            break
        others = order.choice(len(places), len(doubled), replace=False)
        for one, other in zip(doubled.tolist(), others.tolist(), strict=True):
            places[one], places[other] = places[other], places[one]
    return places


def _repeated(texts: Int64Array, batches: Int64Array) -> npt.NDArray[np.bool_]:
    """Mark what stood earlier in its batch."""
    order = np.lexsort((texts, batches))
    same = (np.diff(texts[order]) == 0) & (np.diff(batches[order]) == 0)
    marked = np.zeros(len(texts), bool)
    marked[order[1:][same]] = True
    return marked
