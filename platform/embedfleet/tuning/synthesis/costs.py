"""What a synthesis costs: counted where the endpoint counts, estimated before.

An estimate says what it rests on. It leaves out repeated requests and repairs of answers that are
not there yet, and gives beside what is expected the most that answers of the longest kind, each
repaired once, could cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tokenizers import Tokenizer

from embedfleet.errors import CheckpointError
from embedfleet.tuning.synthesis.answers import (
    Unusable,
    content_of,
    read_choice,
    read_query,
    repair,
)
from embedfleet.tuning.synthesis.chat import key_of
from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.prompts import (
    Configuration,
    Difficulty,
    Prompt,
    QuestionType,
    choosing,
    writing,
)
from embedfleet.tuning.synthesis.settings import Prices, SynthesisSettings, Task

__all__ = ["Counter", "Estimate", "cost_of", "counter_of", "estimate", "num_tokens"]

Counter = Callable[[str], int]
"""Counts the tokens of a text."""

T = TypeVar("T")

_MILLION: Final = 1_000_000
_CHOICE_TOKENS: Final = 40
"""`{"task": "retrieval", "persona": 3, ...}` is about 30."""
_TOKENS_PER_WORD: Final = 2
_FRAME_TOKENS: Final = 10
"""`{"query": "..."}` around a query, and a chat template around each message."""


@dataclass(slots=True)
class Estimate:
    """What is still to be asked, and what that takes.

    Attributes:
        num_queries: To be written, those begun included.
        num_answered: Questions that the journal answers.
        num_questions: Still to be asked.
        completion_tokens: As expected.
        most_completion_tokens: If every answer were as long as it may be.
    """

    num_queries: int = 0
    num_answered: int = 0
    num_questions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    most_completion_tokens: int = 0

    def add(self, prompt_tokens: int, completion_tokens: int, most: int) -> None:
        """Count one question."""
        self.num_questions += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += min(completion_tokens, most)
        self.most_completion_tokens += most

    def cost(self, prices: Prices) -> float:
        """Give the expected cost."""
        return cost_of(prices, self.prompt_tokens, self.completion_tokens)

    def most_cost(self, prices: Prices) -> float:
        """Give the cost if every answer had full length and had to be repaired."""
        longest = self.most_completion_tokens
        return cost_of(prices, 2 * self.prompt_tokens + longest, 2 * longest)


def num_tokens(text: str) -> int:
    """Estimate: 4 bytes of UTF-8 a token, so that scripts of 3 bytes a character count more."""
    return -(-len(text.encode()) // 4)


def cost_of(prices: Prices, prompt_tokens: int, completion_tokens: int) -> float:
    """Give the cost of tokens."""
    prompt = prompt_tokens * prices.prompt_per_million
    return (prompt + completion_tokens * prices.completion_per_million) / _MILLION


def counter_of(tokenizer: str | None) -> Counter:
    """Load what counts prompts: the model's own tokenizer where it is given.

    Raises:
        CheckpointError: The file is no tokenizer.
    """
    if tokenizer is None:
        return num_tokens
    path = Path(tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        loaded = Tokenizer.from_file(str(path))
    # The library raises no narrower class.
    except Exception as error:
        raise CheckpointError(
            f"tokenizer is {tokenizer}, which cannot be read as a tokenizer.json: {error}. Name "
            "the model's own file, or leave it out to estimate.",
            field="tokenizer",
        ) from error
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def estimate(
    draws: Iterable[Draw], journal: Journal, settings: SynthesisSettings, count: Counter
) -> Estimate:
    """Count what the journal cannot answer yet."""
    found = Estimate()
    most = settings.endpoint.max_tokens

    def follow(prompt: Prompt, draw: Draw, read: Callable[[str], T]) -> tuple[T | None, Prompt]:
        """Read a step's answer; where there is none to read, give the last question as well."""
        asked = prompt
        while True:
            completion = journal.answer(key_of(settings.endpoint, asked, draw.number))
            if completion is None:
                return None, asked
            found.num_answered += 1
            try:
                return read(content_of(completion)), asked
            except Unusable as unusable:
                again = repair(prompt, completion, unusable)
                if again is None or asked is not prompt:
                    raise
                asked = again

    for draw in draws:
        if not draw.tasks:
            continue
        try:
            chosen, asked = follow(choosing(draw), draw, partial(read_choice, draw=draw))
            if chosen is None:
                found.add(_prompt_tokens(asked, count), _CHOICE_TOKENS, most)
                chosen = _likely(draw)
                asked = writing(draw, chosen)
            else:
                query, asked = follow(writing(draw, chosen), draw, read_query)
                if query is not None:
                    continue
        except Unusable:
            continue  # nothing follows
        found.num_queries += 1
        found.add(_prompt_tokens(asked, count), _query_tokens(draw, chosen, count), most)
    return found


def _likely(draw: Draw) -> Configuration:
    persona = max(draw.personas, key=len)
    return Configuration(draw.tasks[0], persona, QuestionType.FACT, Difficulty.UNIVERSITY)


def _prompt_tokens(prompt: Prompt, count: Counter) -> int:
    return sum(count(each["content"]) + _FRAME_TOKENS for each in prompt.messages)


def _query_tokens(draw: Draw, chosen: Configuration, count: Counter) -> int:
    if chosen.task in (Task.BITEXT, Task.STS):
        return count(draw.passage.text) + _FRAME_TOKENS
    return draw.length.max_words * _TOKENS_PER_WORD + _FRAME_TOKENS
