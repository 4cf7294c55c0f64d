"""The settings of an endpoint: where it is, how it is asked, and how patiently."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from embedfleet.resources.base import PATTERNS, Part, Violation

__all__ = ["EndpointSettings", "MaxTokensField", "ResponseFormat", "Retries"]

_BASE_URL: Final = r"^https?://[^\p{Z}\p{Cc}?#]+$"
_VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
PATTERNS[_BASE_URL] = "must be an address such as https://api.example.com/v1"
PATTERNS[_VARIABLE] = "must be the name of an environment variable, not its value"

_OWN_FIELDS: Final = frozenset({"model", "messages", "temperature", "response_format", "stream"})

_Path = Annotated[str, Field(min_length=1, max_length=4096)]


class ResponseFormat(StrEnum):
    """How the endpoint is asked for JSON; `auto` finds out which of the three it takes."""

    AUTO = "auto"
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"


class MaxTokensField(StrEnum):
    """What the endpoint calls the bound of an answer."""

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


class Retries(Part):
    """What is tried again: 429, 5xx, timeouts, broken connections, answers outside the protocol."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Requests for one call; then it is left for the next run."""
    first_delay_seconds: Annotated[float, Field(gt=0, le=600)] = 1.0
    """Wait after the first failure; doubles with each further one in a row."""
    max_delay_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Longest wait that is not the endpoint's own wish."""

    def violations(self) -> Iterator[Violation]:
        """The delays are the right way round."""
        if self.max_delay_seconds < self.first_delay_seconds:
            yield Violation(
                "maxDelaySeconds", self.max_delay_seconds,
                f"must be at least firstDelaySeconds, {self.first_delay_seconds:g}",
                "Raise it or lower firstDelaySeconds.", ("firstDelaySeconds",),
            )  # fmt: skip


class EndpointSettings(Part):
    """The language model: an endpoint that speaks OpenAI's chat completions."""

    base_url: Annotated[str, Field(pattern=_BASE_URL, max_length=2048)]
    """Address under which `/chat/completions` lies, with its version: `http://host:8000/v1`."""
    model: Annotated[str, Field(min_length=1, max_length=512)]
    """Name of the model at the endpoint."""
    key_variable: Annotated[str, Field(pattern=_VARIABLE, max_length=256)] | None = None
    """Environment variable that holds the key."""
    key_file: _Path | None = None
    """File that holds the key."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Sampling temperature."""
    max_tokens: Annotated[int, Field(ge=16, le=131_072)] = 1_024
    """Bound of one answer, thoughts included."""
    max_tokens_field: MaxTokensField = MaxTokensField.MAX_TOKENS
    """What the endpoint calls that bound."""
    response_format: ResponseFormat = ResponseFormat.AUTO
    """How JSON is asked for."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More fields of each request, such as `chat_template_kwargs: {enable_thinking: false}`."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests in flight."""
    requests_per_minute: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Pace that is never exceeded. Default: only what the endpoint's answers ask for."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Bound for one request, from connecting to the last byte."""
    retries: Retries = Retries()
    """What is tried again, and when."""
    max_consecutive_failures: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Failures in a row after which the run stops; failures of one moment count once."""

    def violations(self) -> Iterator[Violation]:
        """One place for the key, and no field of a request set twice."""
        if self.key_variable and self.key_file:
            yield Violation(
                "keyFile", self.key_file, "the key is in keyVariable already",
                "Leave out one of the two.", ("keyVariable",),
            )  # fmt: skip
        for name in sorted(self.extra_body.keys() & {*_OWN_FIELDS, *MaxTokensField}):
            yield Violation(
                f"extraBody.{name}", self.extra_body[name], "is written by this program",
                "Use the setting of endpoint for it, or leave it out.",
            )  # fmt: skip
