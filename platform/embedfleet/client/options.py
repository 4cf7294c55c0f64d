"""How to reach a fleet and how to ask it: settings of a client and keywords of its calls.

Keywords are checked here, before anything is sent: an unknown one is refused with the closest that
exists, a wrong value with what is allowed. Limits that belong to a model are the server's to check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, cast

from embedfleet.errors import InvalidRequest
from embedfleet.messages import (
    EmbedOptions,
    InputType,
    OutputType,
    Priority,
    RerankOptions,
    Truncation,
)

__all__ = [
    "CallOptions",
    "ClientConfig",
    "EmbedKeywords",
    "OnItemError",
    "RerankKeywords",
    "Tls",
    "TokenizeKeywords",
    "TokenizeOptions",
    "embed_options",
    "rerank_options",
    "seconds",
    "tokenize_options",
]

OnItemError = Literal["raise", "keep"]

_Choice = TypeVar("_Choice", bound=StrEnum)
_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of an encrypted connection.

    Attributes:
        root_certificates: Authorities to trust (PEM). None means the ones gRPC ships.
        certificate: The client's own certificate chain (PEM), where the fleet asks for one.
        private_key: Of `certificate`.
        server_name: Name in the fleet's certificate, where it is not the endpoint's host.
    """

    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client does with every call.

    Attributes:
        timeout_seconds: Bound for one whole call, its requests and retries included. One that needs
            more than three quarters of it is taken for lost and made again, unless it is the last.
        stream_timeout_seconds: The same for one request of a stream, which as a whole has none.
        max_batch_items: Items in one request. Small enough for several replicas to share an input.
            A model that takes fewer gets fewer, once it has refused so many.
        max_batch_bytes: Text in one request; a longer text travels alone.
        max_in_flight: Requests of one call that are under way at once.
        max_attempts: Tries of one request whose failures do not say when to come back. A single
            one has all the time.
        max_message_bytes: Largest message sent or taken.
    """

    timeout_seconds: float = 60.0
    stream_timeout_seconds: float = 600.0
    max_batch_items: int = 128
    max_batch_bytes: int = 256 * 1024
    max_in_flight: int = 4
    max_attempts: int = 5
    max_message_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what could never send anything."""
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise InvalidRequest(
                    f"{name} is {getattr(self, name)}; it must be above 0.", field=name
                )


class EmbedKeywords(TypedDict, total=False):
    """Keywords of every embedding call.

    `instruction` replaces the model's default, only with QUERY. `dimension` keeps that many leading
    components. `output_type` is the model's default unless given. `timeout` is in seconds.
    `on_item_error="keep"` returns the other items' results.
    """

    instruction: str | None
    dimension: int | None
    normalize: bool
    output_type: OutputType | str | None
    truncation: Truncation | str
    priority: Priority | str
    expected_contract_hash: str
    timeout: float | None
    on_item_error: OnItemError


class RerankKeywords(TypedDict, total=False):
    """Keywords of a reranking call.

    `top_n` keeps the best only. `raw_scores` gives logits. `max_tokens_per_document` bounds one
    document's own tokens. `timeout` is in seconds. `on_item_error="keep"` returns the others.
    """

    instruction: str | None
    top_n: int | None
    raw_scores: bool
    max_tokens_per_document: int | None
    truncation: Truncation | str
    priority: Priority | str
    expected_contract_hash: str
    timeout: float | None
    on_item_error: OnItemError


class TokenizeKeywords(TypedDict, total=False):
    """Keywords of a tokenizing call: an embedder takes `input_type`, a reranker `query`."""

    input_type: InputType | str | None
    query: str
    instruction: str | None
    truncation: Truncation | str
    timeout: float | None
    on_item_error: OnItemError


@dataclass(frozen=True, slots=True)
class TokenizeOptions:
    """What the prompt around each text is made of."""

    input_type: InputType | None
    query: str
    instruction: str | None
    truncation: Truncation


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The part of a call's keywords that stays in the client."""

    timeout_seconds: float
    keep_errors: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], default_seconds: float) -> CallOptions:
        """Check the values among a call's keywords; the default stands in for no timeout."""
        on_item_error = given.get("on_item_error", "raise")
        if on_item_error not in ("raise", "keep"):
            raise InvalidRequest(
                f"on_item_error is {on_item_error!r}; it must be 'raise' or 'keep'.",
                field="on_item_error",
            )
        return cls(seconds(given.get("timeout"), default_seconds), on_item_error == "keep")


def seconds(timeout: float | None, default: float) -> float:
    """Check a timeout; the default stands in for none."""
    value = default if timeout is None else timeout
    if not (isinstance(value, int | float) and value > 0 and math.isfinite(value)):
        raise InvalidRequest(
            f"timeout is {value!r}; give a number of seconds above 0.", field="timeout"
        )
    return float(value)


def embed_options(
    input_type: InputType | str, keywords: EmbedKeywords, timeout: float
) -> tuple[EmbedOptions, CallOptions]:
    """Check an embedding call's keywords; `timeout` is the default in seconds."""
    given = cast(dict[str, Any], keywords)
    _refuse_unknown(given, EmbedKeywords.__annotations__)
    output_type = given.get("output_type")
    options = EmbedOptions(
        input_type=choice("input_type", input_type, InputType),
        instruction=given.get("instruction"),
        dimension=_count("dimension", given.get("dimension")),
        normalize=given.get("normalize", True),
        output_type=None if output_type is None else choice("output_type", output_type, OutputType),
        truncation=choice("truncation", given.get("truncation", "NONE"), Truncation),
        priority=choice("priority", given.get("priority", "INTERACTIVE"), Priority),
        expected_contract_hash=given.get("expected_contract_hash", ""),
    )
    return options, CallOptions.of(given, timeout)


def rerank_options(keywords: RerankKeywords, timeout: float) -> tuple[RerankOptions, CallOptions]:
    """Check a reranking call's keywords; `timeout` is the default in seconds."""
    given = cast(dict[str, Any], keywords)
    _refuse_unknown(given, RerankKeywords.__annotations__)
    max_tokens = given.get("max_tokens_per_document")
    options = RerankOptions(
        instruction=given.get("instruction"),
        top_n=_count("top_n", given.get("top_n")),
        raw_scores=given.get("raw_scores", False),
        max_tokens_per_document=_count("max_tokens_per_document", max_tokens),
        truncation=choice("truncation", given.get("truncation", "NONE"), Truncation),
        priority=choice("priority", given.get("priority", "INTERACTIVE"), Priority),
        expected_contract_hash=given.get("expected_contract_hash", ""),
    )
    return options, CallOptions.of(given, timeout)


def tokenize_options(
    keywords: TokenizeKeywords, timeout: float
) -> tuple[TokenizeOptions, CallOptions]:
    """Check a tokenizing call's keywords; `timeout` is the default in seconds."""
    given = cast(dict[str, Any], keywords)
    _refuse_unknown(given, TokenizeKeywords.__annotations__)
    input_type = given.get("input_type")
    options = TokenizeOptions(
        input_type=None if input_type is None else choice("input_type", input_type, InputType),
        query=given.get("query", ""),
        instruction=given.get("instruction"),
        truncation=choice("truncation", given.get("truncation", "NONE"), Truncation),
    )
    return options, CallOptions.of(given, timeout)


def choice(name: str, value: str, kind: type[_Choice]) -> _Choice:
    """Read one of an enum's names, in any case of letters."""
    text = value.upper() if isinstance(value, str) else repr(value)
    if text not in kind.__members__:
        allowed = ", ".join(kind.__members__)
        raise InvalidRequest(f"{name} is {value!r}; it must be one of {allowed}.", field=name)
    return kind[text]


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidRequest(f"{name} is {value!r}; it must be a whole number.", field=name)
    number = value.__index__()
    if not 0 <= number <= _UINT32_MAX:
        raise InvalidRequest(f"{name} is {number}; it must be 0 to {_UINT32_MAX}.", field=name)
    return number


def _refuse_unknown(given: dict[str, Any], known: dict[str, Any]) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
            raise TypeError(f"There is no option {name!r}. {hint}")
