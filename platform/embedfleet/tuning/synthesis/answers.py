"""From what a language model wrote to what was asked for, or why it cannot be used.

Thoughts before an answer and a code fence around it are taken off, since models write them whatever
they are told. Nothing else is guessed.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.prompts import (
    Configuration,
    Difficulty,
    Prompt,
    QuestionType,
    repairing,
)
from embedfleet.tuning.synthesis.replies import Completion, Ending
from embedfleet.tuning.synthesis.settings import Task

__all__ = ["Reason", "Unusable", "content_of", "read_choice", "read_query", "repair"]

_THOUGHTS: Final = re.compile(r"^\s*<think>.*?</think>", re.S)
_FENCE: Final = re.compile(r"^```\w*\s*\n(.*?)\n?\s*```$", re.S)
_MAX_SHOWN: Final = 120
_MAX_SENT_BACK: Final = 2_000
"""Characters of a spoiled answer: it may be as long as the endpoint allows."""

_Answer = TypeVar("_Answer", bound=BaseModel)


class Reason(StrEnum):
    """Why a query is not among the examples."""

    NOT_JSON = "not-json"
    WRONG_FIELDS = "wrong-fields"
    CUT_OFF = "cut-off"
    REFUSED = "refused-by-model"
    NOT_TAKEN = "refused-by-endpoint"
    COPY = "copy-of-passage"
    DUPLICATE = "duplicate"
    LOW_COSINE = "low-cosine"


class Unusable(Exception):
    """An answer that is not what was asked for; the text says what is wrong with it."""

    def __init__(self, reason: Reason, flaw: str) -> None:
        super().__init__(flaw)
        self.reason = reason
        self.flaw = flaw


_REPAIRABLE: Final = frozenset({Reason.NOT_JSON, Reason.WRONG_FIELDS})

_ENDINGS: Final = {
    Ending.CUT_OFF: (Reason.CUT_OFF, "it was cut off: raise endpoint.maxTokens"),
    Ending.REFUSED: (Reason.REFUSED, "the model refused"),
    Ending.NOT_TAKEN: (Reason.NOT_TAKEN, "the endpoint refused it; --retry-refused asks again"),
}


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    task: Task
    persona: int
    question_type: QuestionType | None = None
    difficulty: Difficulty


class _Query(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    query: str = Field(min_length=1, max_length=20_000)


def content_of(completion: Completion) -> str:
    """Give what a model wrote to its end.

    Raises:
        Unusable: It was cut off or refused.
    """
    if completion.ending is Ending.STOP:
        return completion.content
    reason, flaw = _ENDINGS[completion.ending]
    raise Unusable(reason, f"{flaw} ({completion.content[:_MAX_SHOWN]})")


def read_choice(content: str, draw: Draw) -> Configuration:
    """Read the answer of the first step.

    Raises:
        Unusable: It is not JSON, lacks a field, or chooses what was not offered.
    """
    choice = _validated(_Choice, content)
    if choice.task not in draw.tasks:
        offered = ", ".join(draw.tasks)
        raise Unusable(Reason.WRONG_FIELDS, f"task is {choice.task}, offered are {offered}")
    if not 1 <= choice.persona <= len(draw.personas):
        raise Unusable(
            Reason.WRONG_FIELDS,
            f"persona is {choice.persona}, offered are 1 to {len(draw.personas)}",
        )
    question_type = choice.question_type
    if choice.task is Task.RETRIEVAL and question_type is None:
        raise Unusable(Reason.WRONG_FIELDS, "question_type is null, and the task is retrieval")
    persona = draw.personas[choice.persona - 1]
    return Configuration(choice.task, persona, question_type, choice.difficulty)


def read_query(content: str) -> str:
    """Read the answer of the second step, blanks around it and line ends in it taken out.

    Raises:
        Unusable: It is not JSON, or has no query.
    """
    query = " ".join(_validated(_Query, content).query.split())
    if not query:
        raise Unusable(Reason.WRONG_FIELDS, "query is blank")
    return query


def repair(prompt: Prompt, completion: Completion, unusable: Unusable) -> Prompt | None:
    """Make the question that sends a spoiled answer back; None where asking again cannot help."""
    if unusable.reason not in _REPAIRABLE:
        return None
    spoiled = completion.content[:_MAX_SENT_BACK].strip() or "(nothing)"
    return repairing(prompt, spoiled, unusable.flaw)


def _validated(kind: type[_Answer], content: str) -> _Answer:
    try:
        return kind.model_validate(_object(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Unusable(Reason.WRONG_FIELDS, f"{where}: {first['msg']}") from error


def _object(content: str) -> dict[str, Any]:
    """Find the one JSON object of an answer."""
    text = _THOUGHTS.sub("", content).strip()
    fenced = _FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        flaw = f"it is not JSON: {error}" if text else "it is empty"
        raise Unusable(Reason.NOT_JSON, flaw) from error
    if not isinstance(found, dict):
        raise Unusable(Reason.NOT_JSON, f"it is {text[:_MAX_SHOWN]}, not a JSON object")
    return found
