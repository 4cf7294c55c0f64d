"""The two steps for one passage: a configuration is chosen, then the query is written.

An answer that cannot be used is sent back once with what is wrong. Who is asked, how often and how
fast is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from embedfleet.tuning.synthesis.answers import (
    Reason,
    Unusable,
    content_of,
    read_choice,
    read_query,
    repair,
)
from embedfleet.tuning.synthesis.calling import Caller, Question
from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.prompts import Configuration, Prompt, choosing, writing
from embedfleet.tuning.synthesis.replies import Completion
from embedfleet.tuning.synthesis.settings import Task

__all__ = ["Draft", "Rejection", "synthesize_query"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """A query that was written, not compared with its passage yet.

    Attributes:
        language: Of the query.
    """

    draw: Draw
    chosen: Configuration
    language: str
    query: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A query that does not become an example.

    Attributes:
        said: Why, in words.
        chosen: Configuration, where one was chosen.
        language: Of the query, where it was written.
        query: Where it was written.
        cosine: Where it was compared.
    """

    draw: Draw
    reason: Reason
    said: str
    chosen: Configuration | None = None
    language: str = ""
    query: str = ""
    cosine: float | None = None


async def synthesize_query(draw: Draw, caller: Caller) -> Draft | Rejection:
    """Choose a configuration for a passage and write its query.

    Raises:
        Unanswered: Not all questions have an answer in this run.
    """
    chosen: Configuration | None = None
    try:
        chosen = await _answered(
            draw, choosing(draw), caller, lambda content: read_choice(content, draw)
        )
        query = await _answered(draw, writing(draw, chosen), caller, read_query)
    except Unusable as unusable:
        return Rejection(draw, unusable.reason, unusable.flaw, chosen)
    translates = chosen.task is Task.BITEXT
    return Draft(draw, chosen, draw.translation_language if translates else draw.language, query)


async def _answered(draw: Draw, prompt: Prompt, caller: Caller, read: Callable[[str], T]) -> T:
    """Ask, and ask once more where the answer is not of the form asked for."""
    completions: list[Completion] = []
    taking = partial(_taken, read=read, completions=completions)
    try:
        return await caller(Question(prompt, draw.passage.name, draw.number), taking)
    except Unusable as unusable:
        again = repair(prompt, completions[-1], unusable)
        if again is None:
            raise
    return await caller(Question(again, draw.passage.name, draw.number), taking)


def _taken(completion: Completion, read: Callable[[str], T], completions: list[Completion]) -> T:
    completions.append(completion)
    return read(content_of(completion))
