"""From one HTTP response of a chat completions endpoint to what to do next. Pure.

The wire is OpenAI's: `choices[0].message.content`, `usage`, `error.message`; a refusal is its own
field there. What servers do otherwise is told apart by whether another try can help.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = ["Completion", "Ending", "Failure", "Next", "excerpt", "judge_response", "sentence"]

_MAX_SHOWN: Final = 300
_AGAIN: Final = frozenset({408, 409, 425, 429})
_FATAL: Final = frozenset({401, 402, 403, 404, 405})
_FORMAT_WORDS: Final = ("response_format", "json_schema", "json_object", "guided", "structured")
_NO_CREDIT: Final = ("insufficient_quota", "billing")


class Ending(StrEnum):
    """How a completion ended."""

    STOP = "stop"
    CUT_OFF = "cut-off"
    REFUSED = "refused"
    NOT_TAKEN = "not-taken"


@dataclass(frozen=True, slots=True)
class Completion:
    """What an endpoint answered, for good: it is not asked again.

    Attributes:
        content: What the model wrote; of a refusal, its words; of a request that the endpoint does
            not take, the endpoint's words.
        prompt_tokens: As the endpoint counts them, or an estimate.
        completion_tokens: Likewise.
        counted: Whether the endpoint counted them.
    """

    content: str
    ending: Ending = Ending.STOP
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = True


class Next(StrEnum):
    """What may help after a failure."""

    AGAIN = "again"
    """The same once more, later."""
    NONSENSE = "nonsense"
    """The same once more, but it answers, and not what the protocol says."""
    OTHER_FORMAT = "other-format"
    """To ask for JSON in another way."""
    NOTHING = "nothing"
    """A person has to change something."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request brought no completion.

    Attributes:
        said: In words, with what the endpoint said.
        status: Of HTTP; 0 where none came.
    """

    next: Next
    said: str
    status: int = 0


def judge_response(status: int, body: bytes, asked_format: str) -> Completion | Failure:
    """Tell what a response means.

    Args:
        status: Of HTTP.
        body: As received, decompressed.
        asked_format: How JSON was asked for; `text` where it was not.
    """
    if status == 200:
        return _completion(body)
    said = f"HTTP {status}: {excerpt(body)}"
    lowered = said.lower()
    if status == 429 and any(word in lowered for word in _NO_CREDIT):
        return Failure(Next.NOTHING, said, status)
    if status in _AGAIN or status >= 500:
        return Failure(Next.AGAIN, said, status)
    if status in _FATAL or status < 400:
        return Failure(Next.NOTHING, said, status)
    if asked_format != "text" and any(word in lowered for word in _FORMAT_WORDS):
        return Failure(Next.OTHER_FORMAT, said, status)
    return Completion(said, Ending.NOT_TAKEN)


def excerpt(body: bytes) -> str:
    """Show what an endpoint said: its error's message where it has one, else the start."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        error = json.loads(text)
        for field in ("error", "message", "detail"):
            if isinstance(error, dict) and error.get(field):
                error = error[field]
        text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    # Unprintable characters could steer the terminal that shows them.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + "…") or "(nothing)"


def sentence(said: str) -> str:
    """End what an endpoint said as a sentence, so that another can follow."""
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _completion(body: bytes) -> Completion | Failure:
    try:
        record = json.loads(body)
        choice = record["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Failure(Next.NONSENSE, f"HTTP 200 without choices: {excerpt(body)}", 200)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        return Failure(Next.NONSENSE, f"HTTP 200 without text: {excerpt(body)}", 200)
    ending = Ending.STOP
    if refusal or finish == "content_filter":
        ending, content = Ending.REFUSED, str(refusal or content or finish)
    elif finish == "length":
        ending = Ending.CUT_OFF
    return Completion(_encodable(content or ""), ending, *_usage(record))


def _usage(record: Mapping[str, Any]) -> tuple[int, int, bool]:
    usage = record.get("usage")
    found = usage if isinstance(usage, dict) else {}
    counts = [found.get("prompt_tokens"), found.get("completion_tokens")]
    good = [count for count in counts if type(count) is int and 0 <= count < 2**53]
    return (good[0], good[1], True) if len(good) == 2 else (0, 0, False)


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
