"""Questions to an endpoint until it answers: journal first, then pace, budget, retries, breaker.

No question is sent that the journal can answer. The first condition under which nothing more may be
sent stops all; what is in flight then still comes in, because it is paid for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final, TypeVar

from embedfleet.errors import EmbedfleetError, EndpointFailed
from embedfleet.tuning.synthesis.answers import Unusable
from embedfleet.tuning.synthesis.breaker import Breaker
from embedfleet.tuning.synthesis.chat import Chat, key_of
from embedfleet.tuning.synthesis.costs import cost_of, num_tokens
from embedfleet.tuning.synthesis.endpoint_settings import EndpointSettings, ResponseFormat
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.pauses import Gate, backoff_seconds
from embedfleet.tuning.synthesis.prompts import Prompt
from embedfleet.tuning.synthesis.replies import Completion, Failure, Next, sentence
from embedfleet.tuning.synthesis.settings import SynthesisSettings

__all__ = ["Caller", "Question", "Unanswered"]

T = TypeVar("T")

_TOO_MANY: Final = 429
_MAX_PAUSE_SECONDS: Final = 900.0
"""Who is told to wait longer can as well come back later."""

_NEXT_FORMAT: Final = {
    ResponseFormat.JSON_SCHEMA: ResponseFormat.JSON_OBJECT,
    ResponseFormat.JSON_OBJECT: ResponseFormat.TEXT,
}


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and what it is about.

    Attributes:
        passage: Name of the passage.
        number: Which of its queries, from 0.
    """

    prompt: Prompt
    passage: str
    number: int


class Unanswered(Exception):
    """A question has no answer in this run; a later run asks it again."""


class Caller:
    """Asks one endpoint, for as many tasks as want to at once."""

    def __init__(
        self,
        settings: SynthesisSettings,
        chat: Chat,
        journal: Journal,
        tell: Callable[[str], None],
    ) -> None:
        self.failure: EmbedfleetError | OSError | None = None
        self.budget_reached: str = ""
        self.num_sent = 0
        self._settings = settings
        self._endpoint = settings.endpoint
        self._chat = chat
        self._journal = journal
        self._tell = tell
        self._chance = Random()
        self._gate = Gate(self._endpoint.requests_per_minute, self._chance)
        self._breaker = Breaker(self._endpoint.max_consecutive_failures)
        # Requests that the journal cannot know yet.
        self._in_flight = 0
        self._format = _first_format(settings, journal)

    @property
    def stopped(self) -> bool:
        """Whether nothing more is sent."""
        return self.failure is not None or bool(self.budget_reached)

    async def __call__(self, question: Question, read: Callable[[Completion], T]) -> T:
        """Give the answer to a question, read.

        Args:
            question: What is asked.
            read: Turns an answer into what it means, or raises `Unusable`.

        Raises:
            Unanswered: There is none in this run: it gave up, or all is stopped.
            Unusable: There is one, and it is not what was asked for.
        """
        key = key_of(self._endpoint, question.prompt, question.number)
        known = self._journal.answer(key)
        if known is not None:
            return read(known)
        try:
            completion = await self._ask(key, question)
            try:
                found = read(completion)
            except Unusable as unusable:
                self._breaker.spoiled()
                self._breaker.check(f"an answer that cannot be used: {unusable.flaw}.")
                raise
        except (EmbedfleetError, OSError) as error:
            self.failure = self.failure or error
            raise Unanswered(str(error)) from error
        self._breaker.succeeded()
        return found

    async def _ask(self, key: str, question: Question) -> Completion:
        attempts = self._endpoint.retries.max_attempts
        while attempts > 0:
            await self._may_send()
            self._in_flight += 1
            try:
                asked_format, sent_at = self._format, time.monotonic()
                outcome = await self._chat.ask(question.prompt, asked_format)
                result = outcome.result
                if isinstance(result, Completion):
                    return await self._keep(key, question, result, outcome.pause_seconds)
                await self._journal.keep_failure(key, result.status, result.said)
            finally:
                self._in_flight -= 1
            if result.next is Next.OTHER_FORMAT:
                await self._change_format(asked_format, result)
            else:
                # Being told to wait is no failure of the question.
                attempts -= result.status != _TOO_MANY
                self._after_failure(result, sent_at, outcome.pause_seconds)
        raise Unanswered(f"no answer after {self._endpoint.retries.max_attempts} attempts")

    async def _may_send(self) -> None:
        """Wait for the turn of a request, and refuse it where nothing more may be sent."""
        if not self.stopped:
            await self._gate.wait()
        budget, spent, prices = self._settings.budget, self._journal.spent, self._settings.prices
        requests = spent.num_requests + self._in_flight
        if budget.max_requests is not None and requests >= budget.max_requests:
            self.budget_reached = f"budget.maxRequests is {budget.max_requests:,}"
        if budget.max_cost is not None and prices is not None:
            cost = cost_of(prices, spent.prompt_tokens, spent.completion_tokens)
            if cost >= budget.max_cost:
                self.budget_reached = f"budget.maxCost is {budget.max_cost:g} {prices.currency}"
        if self.stopped:
            raise Unanswered("nothing more is sent")

    async def _keep(
        self, key: str, question: Question, completion: Completion, pause: float | None
    ) -> Completion:
        if not completion.counted:
            prompt = sum(num_tokens(each["content"]) for each in question.prompt.messages)
            answer = num_tokens(completion.content)
            completion = replace(completion, prompt_tokens=prompt, completion_tokens=answer)
        await self._journal.keep(key, question.passage, question.prompt.name, completion)
        if pause is not None:
            try:
                self._pause(pause, "the limit of its x-ratelimit headers is used up.")
            except EndpointFailed as error:
                self.failure = self.failure or error
        return completion

    async def _change_format(self, asked: ResponseFormat, failure: Failure) -> None:
        """Ask for JSON in a plainer way from now on; requests in flight may find that done."""
        if asked is not self._format:
            return
        if self._endpoint.response_format is not ResponseFormat.AUTO:
            raise EndpointFailed(
                f"endpoint.responseFormat is {asked}, which the endpoint does not take: "
                f"{sentence(failure.said)} Set it to auto, json_object or text.",
                field="endpoint.responseFormat",
            )
        self._format = _NEXT_FORMAT[asked]
        self._tell(f"The endpoint does not take {asked}; asking for {self._format}.")
        await self._journal.keep_format(self._format)

    def _after_failure(self, failure: Failure, sent_at: float, asked: float | None) -> None:
        """Decide what a failure means for all that is still to be sent."""
        if failure.next is Next.NOTHING:
            raise EndpointFailed(_refusal(failure, self._endpoint), field="endpoint")
        counts = True
        if failure.next is Next.NONSENSE:
            self._breaker.spoiled()
        else:
            counts = self._breaker.failed(sent_at, time.monotonic())
        self._breaker.check(failure.said)
        retries, failures = self._endpoint.retries, self._breaker.failures
        if asked is not None:
            self._pause(asked, failure.said)
        elif counts:
            first, longest = retries.first_delay_seconds, retries.max_delay_seconds
            self._gate.pause(backoff_seconds(first, longest, failures, self._chance))
        if counts:
            self._tell(f"Trying again: {failure.said}")

    def _pause(self, seconds: float, said: str) -> None:
        if seconds > _MAX_PAUSE_SECONDS:
            raise EndpointFailed(
                f"The endpoint asks to be left alone for {seconds:,.0f} s, and this run waits at "
                f"most {_MAX_PAUSE_SECONDS:g} s: {sentence(said)} Every answer so far is kept; "
                "run the same command again after that.",
                field="endpoint",
            )
        self._gate.pause(seconds)


def _first_format(settings: SynthesisSettings, journal: Journal) -> ResponseFormat:
    """Begin with what is set, else what an earlier run found out, else the strictest."""
    chosen = settings.endpoint.response_format
    if chosen is not ResponseFormat.AUTO:
        return chosen
    return journal.response_format or ResponseFormat.JSON_SCHEMA


def _refusal(failure: Failure, endpoint: EndpointSettings) -> str:
    where = endpoint.key_variable or endpoint.key_file
    key = f"Check the key in {where}" if where else "Name a key: endpoint.keyVariable or keyFile"
    remedies = {
        401: key,
        402: "Check the account's credit",
        403: f"{key}, and what it may use",
        404: f"Check endpoint.model, {endpoint.model}, and the version at the end of baseUrl",
        429: "Check the account's credit",
    }
    remedy = remedies.get(failure.status, "Check endpoint.baseUrl")
    return (
        f"The endpoint {endpoint.base_url} refuses requests: {sentence(failure.said)} {remedy}. "
        "Every answer so far is kept; run the same command again then."
    )
