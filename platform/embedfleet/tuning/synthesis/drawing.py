"""What is drawn for a query before anything is asked: who, which language, how long, which tasks.

Every draw depends on the seed, the passage's own text and the number of the query alone. So an
interrupted run asks the same questions again, whatever was answered in between. Uses only
`random.random()`, whose sequence Python keeps from version to version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from embedfleet.tuning.synthesis.passages import Passage
from embedfleet.tuning.synthesis.settings import Length, SynthesisSettings, Task

__all__ = ["Draw", "draw", "draws_of"]

_MAX_WORDS: Final = {
    Task.RETRIEVAL: 1_000_000,
    Task.CLASSIFICATION: 300,
    Task.BITEXT: 120,
    Task.STS: 80,
}
"""Passages longer than this do not fit a task: a paraphrase or translation of pages is no pair."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One query to be written, as far as chance decides it.

    Attributes:
        number: Which of the passage's queries, from 0.
        tasks: Those that fit the passage; empty where none does.
        personas: Candidates, in the order in which they are offered.
        language: Of the query, unless it is a translation.
        translation_language: Another one than the passage's; empty where there is none.
        length: Of the query.
    """

    passage: Passage
    number: int
    tasks: tuple[Task, ...]
    personas: tuple[str, ...]
    language: str
    translation_language: str
    length: Length


def draws_of(
    passages: Sequence[Passage], personas: Sequence[str], settings: SynthesisSettings
) -> Iterator[Draw]:
    """Draw every query of every passage, in order."""
    for passage in passages:
        for number in range(settings.queries_per_passage):
            yield draw(passage, number, personas, settings)


def draw(
    passage: Passage, number: int, personas: Sequence[str], settings: SynthesisSettings
) -> Draw:
    """Draw one query of one passage."""
    chance = Random(f"{settings.seed}/{passage.name}/{number}")
    candidates = _some(personas, settings.personas.candidates, chance)
    language = _weighted(settings.languages, chance)
    length = settings.lengths[int(chance.random() * len(settings.lengths))]
    others = {code: w for code, w in settings.languages.items() if code != passage.language}
    translation = _weighted(others, chance) if others else ""
    tasks = tuple(
        task
        for task in settings.tasks
        if passage.num_words <= _MAX_WORDS[task] and (task is not Task.BITEXT or translation)
    )
    return Draw(passage, number, tasks, candidates, language, translation, length)


def _some(items: Sequence[str], count: int, chance: Random) -> tuple[str, ...]:
    """Draw distinct items; `count` is at most their number."""
    places: dict[int, None] = {}
    while len(places) < count:
        places[int(chance.random() * len(items))] = None
    return tuple(items[place] for place in places)


def _weighted(weights: Mapping[str, float], chance: Random) -> str:
    """Draw one key, in the order of the keys' names so that a reordered file draws the same."""
    point = chance.random() * sum(weights.values())
    for name in sorted(weights):
        point -= weights[name]
        if point < 0:
            return name
    return max(weights)
