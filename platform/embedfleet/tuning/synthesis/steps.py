"""The two steps for one passage: a configuration is chosen, then the query is written.

An answer that cannot be used is sent back once with what is wrong. Who is asked, how often and how
fast is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from embedfleet.tuning.synthesis.answers import (
    Reason,
    Unusable,
    content_of,
    read_choice,
    read_query,
)
from embedfleet.tuning.synthesis.calling import Caller, Question
from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.prompts import Configuration, Prompt, choosing, repairing, writing
from embedfleet.tuning.synthesis.replies import Completion
from embedfleet.tuning.synthesis.settings import Task

__all__ = ["Draft", "Rejection", "synthesize_query"]

T = TypeVar("T")

_REPAIRABLE: Final = frozenset({Reason.NOT_JSON, Reason.WRONG_FIELDS})
_MAX_SHOWN: Final = 2_000
"""Characters of a spoiled answer that are sent back: it may be as long as the endpoint allows."""


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
    contents: list[str] = []
    taking = partial(_taken, read=read, contents=contents)
    try:
        return await caller(Question(prompt, draw.passage.name, draw.number), taking)
    except Unusable as unusable:
        if unusable.reason not in _REPAIRABLE:
            raise
        spoiled = contents[-1][:_MAX_SHOWN].strip() or "(nothing)"
        again = repairing(prompt, spoiled, unusable.flaw)
    return await caller(Question(again, draw.passage.name, draw.number), taking)


def _taken(completion: Completion, read: Callable[[str], T], contents: list[str]) -> T:
    content = content_of(completion)
    contents.append(content)
    return read(content)
