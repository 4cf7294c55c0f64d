"""The exact texts a language model is asked with, and the JSON each of them wants back.

Two steps, as in arXiv 2506.05176, section 3 and its appendix: first a configuration is chosen for a
passage, then the query is written from both. Pure: what is asked twice is asked in the same words,
so that an answer can be found again by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.languages import english_name
from embedfleet.tuning.synthesis.settings import Task

__all__ = [
    "Configuration",
    "Difficulty",
    "Message",
    "Prompt",
    "QuestionType",
    "choosing",
    "repairing",
    "writing",
]

Message = dict[str, str]
"""`role` and `content`."""


class QuestionType(StrEnum):
    """What a search asks for."""

    KEYWORDS = "keywords"
    FACT = "fact"
    SUMMARY = "summary"
    YES_OR_NO = "yes_or_no"
    BACKGROUND = "background"


class Difficulty(StrEnum):
    """How much who asks knows already."""

    SCHOOL = "school"
    UNIVERSITY = "university"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask.

    Attributes:
        name: Of the step, such as `choose`.
        schema: JSON Schema of the answer.
    """

    name: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was chosen for a passage in the first step."""

    task: Task
    persona: str
    question_type: QuestionType | None
    difficulty: Difficulty


_TASKS: Final = {
    Task.RETRIEVAL: "somebody searches for what the passage says",
    Task.BITEXT: "the passage reads well enough on its own to be translated as a whole",
    Task.CLASSIFICATION: "the passage clearly is of one kind, by topic, intent or mood",
    Task.STS: "the passage makes one statement that can be made in other words",
}
_QUESTION_TYPES: Final = {
    QuestionType.KEYWORDS: "a few words, no sentence",
    QuestionType.FACT: "something that the passage states",
    QuestionType.SUMMARY: "an overview that the passage gives",
    QuestionType.YES_OR_NO: "a question that the passage decides",
    QuestionType.BACKGROUND: "a question whose answer the passage helps to understand",
}
_DIFFICULTIES: Final = {
    Difficulty.SCHOOL: "everyday words, no knowledge of the field",
    Difficulty.UNIVERSITY: "has studied the field",
    Difficulty.EXPERT: "works in the field, and uses its terms",
}
_CHOOSER: Final = (
    "You plan training data for a text embedding model. You are given a passage and decide which "
    "use of it makes the best training pair, and who would make that use. You answer with one JSON "
    "object in English and write nothing else."
)
_WRITER: Final = (
    "You write one side of a training pair for a text embedding model; the other side is the "
    "passage you are given. You follow every requirement. You answer with one JSON object and "
    "write nothing else."
)
_ORDERS: Final = {
    Task.RETRIEVAL: (
        "Write what this person types to find the passage without having seen it. It must be "
        "answered by the passage, make sense without it, and not mention that there is a passage."
    ),
    Task.BITEXT: (
        "Translate the whole passage. Leave nothing out, add nothing, and keep names and numbers."
    ),
    Task.CLASSIFICATION: (
        "Write another text of the same category as the passage, as this person would write it: "
        "same topic, intent and mood, other content. Do not repeat its sentences."
    ),
    Task.STS: (
        "Say what the passage says in other words. Keep the meaning whole, and share as few words "
        "with it as you can."
    ),
}

_PERSONAL: Final = frozenset({Task.RETRIEVAL, Task.CLASSIFICATION})
"""Tasks whose text is somebody's own; a translation or a paraphrase is the passage's."""


def choosing(draw: Draw) -> Prompt:
    """Ask which configuration fits a passage."""
    personas = [f"{number}. {persona}" for number, persona in enumerate(draw.personas, 1)]
    lines = [
        *_passage(draw),
        "Choose in this order:",
        "- task: what the pair shall teach",
        *_options({task: _TASKS[task] for task in draw.tasks}),
        "- persona: the number of the person who would most likely have to do with the passage",
        *(f"    {line}" for line in personas),
        "- question_type: what this person asks for; null unless the task is retrieval",
        *_options(_QUESTION_TYPES),
        "- difficulty: how much this person knows already",
        *_options(_DIFFICULTIES),
        "",
        'Answer: {"task": "...", "persona": 1, "question_type": "...", "difficulty": "..."}',
    ]
    schema = _object(
        {
            "task": {"type": "string", "enum": [str(task) for task in draw.tasks]},
            "persona": {"type": "integer", "enum": list(range(1, len(personas) + 1))},
            "question_type": {
                "anyOf": [
                    {"type": "string", "enum": [str(each) for each in QuestionType]},
                    {"type": "null"},
                ]
            },
            "difficulty": {"type": "string", "enum": [str(each) for each in Difficulty]},
        }
    )
    return Prompt("choose", _messages(_CHOOSER, lines), schema)


def writing(draw: Draw, chosen: Configuration) -> Prompt:
    """Ask for the query itself."""
    lines = [
        *_passage(draw),
        *([f"Person: {chosen.persona}", ""] if chosen.task in _PERSONAL else []),
        _ORDERS[chosen.task],
        "",
        "Requirements:",
        *_requirements(draw, chosen),
        "",
        'Answer: {"query": "..."}',
    ]
    schema = _object({"query": {"type": "string"}})
    return Prompt("write", _messages(_WRITER, lines), schema)


def repairing(prompt: Prompt, answer: str, flaw: str) -> Prompt:
    """Ask again, with what was wrong with the answer."""
    again = (
        f"That cannot be used: {flaw}. Answer again with one JSON object of exactly these fields "
        f"and nothing else: {', '.join(prompt.schema['properties'])}."
    )
    messages = (
        *prompt.messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": again},
    )
    return Prompt(f"{prompt.name}-again", messages, prompt.schema)


def _requirements(draw: Draw, chosen: Configuration) -> list[str]:
    translates = chosen.task is Task.BITEXT
    language = draw.translation_language if translates else draw.language
    found = [f"- language: {english_name(language)}"]
    if chosen.task is Task.RETRIEVAL and chosen.question_type is not None:
        found.append(f"- type: {_QUESTION_TYPES[chosen.question_type]}")
    if chosen.task in _PERSONAL:
        found.append(f"- length: {draw.length.min_words} to {draw.length.max_words} words")
        found.append(f"- difficulty: {_DIFFICULTIES[chosen.difficulty]}")
    return found


def _passage(draw: Draw) -> list[str]:
    # As a JSON string, so that a passage cannot close what holds it.
    quoted = json.dumps(draw.passage.text, ensure_ascii=False)
    return [f"Passage, in {english_name(draw.passage.language)}:", quoted, ""]


def _options(meanings: Mapping[Any, str]) -> list[str]:
    return [f"    {name}: {meaning}" for name, meaning in meanings.items()]


def _messages(system: str, lines: Sequence[str]) -> tuple[Message, ...]:
    return (
        {"role": "system", "content": system},
        {"role": "user", "content": "\n".join(lines)},
    )


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Build a schema as strict as endpoints want it: everything required, nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
