"""One request to a chat completions endpoint over HTTP, and what came of it.

Bounded in time as a whole and in bytes, whatever the server does. Decides nothing: what a response
means is judged elsewhere, and who asks decides what follows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from embedfleet import __version__
from embedfleet.tuning.synthesis.endpoint_settings import EndpointSettings, ResponseFormat
from embedfleet.tuning.synthesis.pauses import asked_pause_seconds
from embedfleet.tuning.synthesis.prompts import Prompt
from embedfleet.tuning.synthesis.replies import Completion, Failure, Next, judge_response

__all__ = ["MAX_RESPONSE_BYTES", "Chat", "Outcome", "key_of"]

MAX_RESPONSE_BYTES: Final = 4 * 2**20
"""Far above any answer: 131,072 tokens are about 0.5 MB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request brought.

    Attributes:
        pause_seconds: How long the endpoint wants to be left alone; None where it does not say.
    """

    result: Completion | Failure
    pause_seconds: float | None = None


class Chat:
    """An endpoint with its model. Use it as an asynchronous context."""

    def __init__(self, settings: EndpointSettings, key: str | None) -> None:
        self._settings = settings
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        headers = {"User-Agent": f"embedfleet/{__version__}", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        connections = httpx.Limits(
            max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency
        )
        self._client = httpx.AsyncClient(headers=headers, timeout=None, limits=connections)

    async def __aenter__(self) -> Chat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, prompt: Prompt, response_format: ResponseFormat) -> Outcome:
        """Send one request; every way in which it can fail is a result."""
        body = _body(self._settings, prompt, response_format)
        limit = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await self._send(body, response_format)
        except TimeoutError:
            return _again(f"no whole answer from {self._url} within {limit:g} s.")
        except httpx.DecodingError as error:
            said = f"HTTP body that is not compressed as its headers say: {error}"
            return Outcome(Failure(Next.NONSENSE, said))
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            said = f"endpoint.baseUrl is {self._settings.base_url}: {error}"
            return Outcome(Failure(Next.NOTHING, said))
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            return _again(f"the connection to {self._url} failed: {what}.")

    async def _send(self, body: Mapping[str, Any], response_format: ResponseFormat) -> Outcome:
        async with self._client.stream("POST", self._url, json=body) as response:
            pause = asked_pause_seconds(response.status_code, response.headers, time.time())
            received = bytearray()
            async for part in response.aiter_bytes(65_536):
                received += part
                if len(received) > MAX_RESPONSE_BYTES:
                    said = f"HTTP {response.status_code} with over {MAX_RESPONSE_BYTES:,} bytes."
                    return Outcome(Failure(Next.NONSENSE, said, response.status_code), pause)
        result = judge_response(response.status_code, bytes(received), response_format)
        return Outcome(result, pause)


def key_of(settings: EndpointSettings, prompt: Prompt, number: int) -> str:
    """Name a question by all that decides its answer, except where the endpoint is.

    Args:
        settings: Model, sampling and further fields of the request count.
        prompt: What is asked.
        number: Which of a passage's queries, from 0: the same question twice is two questions.
    """
    asked = [_body(settings, prompt, ResponseFormat.TEXT), number]
    text = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _body(
    settings: EndpointSettings, prompt: Prompt, response_format: ResponseFormat
) -> dict[str, Any]:
    body: dict[str, Any] = {
        **settings.extra_body,
        "model": settings.model,
        "messages": list(prompt.messages),
        "temperature": settings.temperature,
        str(settings.max_tokens_field): settings.max_tokens,
    }
    if response_format is ResponseFormat.JSON_OBJECT:
        body["response_format"] = {"type": "json_object"}
    elif response_format is ResponseFormat.JSON_SCHEMA:
        schema = {"name": prompt.name, "strict": True, "schema": prompt.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _again(said: str) -> Outcome:
    return Outcome(Failure(Next.AGAIN, said))
