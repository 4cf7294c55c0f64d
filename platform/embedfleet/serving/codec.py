"""Wire messages to the platform's requests, and results to wire messages: one place for each.

Requests arrive as wire twins (text as bytes). Nothing here decides what a model may do; it only
refuses what no model could understand: unknown enum numbers, text that is not UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import numpy as np

from embedfleet.errors import EmbedfleetError, InvalidRequest
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    EmbedOutcome,
    EmbedResult,
    InputType,
    OutputType,
    Priority,
    Provenance,
    RerankOptions,
    RerankResult,
    Role,
    Timings,
    Truncation,
)
from embedfleet.status import to_item_error
from embedfleet.wire import common_pb2 as wire_common
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

__all__ = [
    "INPUT_TYPES",
    "OUTPUT_NUMBERS",
    "ROLES",
    "TRUNCATIONS",
    "decode_embed",
    "decode_rerank",
    "decode_text",
    "embed_stream_failure",
    "encode_embed",
    "encode_embed_stream",
    "encode_rerank",
    "enum_value",
    "item_error",
    "provenance",
    "rerank_stream_failure",
]

WireEmbedRequest = wire_embedding.EmbedRequest | wire_embedding.EmbedStreamRequest
WireRerankRequest = wire_reranking.RerankRequest | wire_reranking.RerankStreamRequest
Choice = TypeVar("Choice", bound=StrEnum)


def _numbers(kind: type[Choice]) -> dict[int, Choice]:
    published = getattr(wire_common, kind.__name__)
    return {published.Value(member.value): member for member in kind}


INPUT_TYPES: Final = _numbers(InputType)
OUTPUT_TYPES: Final = _numbers(OutputType)
TRUNCATIONS: Final = _numbers(Truncation)
PRIORITIES: Final = _numbers(Priority)
ROLES: Final = {Role.EMBEDDER: wire_model.EMBEDDER, Role.RERANKER: wire_model.RERANKER}
OUTPUT_NUMBERS: Final = {kind: wire_common.OutputType.Value(kind.value) for kind in OutputType}


def enum_value(
    field: str, number: int, known: Mapping[int, Choice], default: Choice | None
) -> Choice:
    """Translate an enum number; 0 means the default.

    Raises:
        InvalidRequest: The number is unknown, or 0 where there is no default.
    """
    choice = known.get(number, default if number == 0 else None)
    if choice is None:
        names = ", ".join(f"{kind.value} ({value})" for value, kind in known.items())
        found = "not set" if number == 0 else str(number)
        raise InvalidRequest(f"{field} is {found}; choose one of {names}.", field=field)
    return choice


def decode_text(field: str, data: bytes) -> str:
    """Decode UTF-8.

    Raises:
        InvalidRequest: The bytes are not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{field} is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start} of "
            f"{len(data)}; {error.reason}. Encode the text as UTF-8.",
            field=field,
        ) from error


def _item(index: int, item: wire_embedding.EmbedItem) -> EmbedItem | EmbedfleetError:
    kind = item.WhichOneof("input")
    if kind == "text":
        try:
            return EmbedItem(text=decode_text(f"items[{index}].text", item.text))
        except InvalidRequest as error:
            return error
    if kind == "token_ids":
        return EmbedItem(token_ids=np.array(item.token_ids.ids, np.int64))
    return InvalidRequest(
        f"items[{index}] has neither text nor token_ids. Set one of them.", field=f"items[{index}]"
    )


def decode_embed(
    request: WireEmbedRequest,
) -> tuple[list[EmbedItem | EmbedfleetError], EmbedOptions]:
    """Turn a request into items, each on its own either good or refused, and their options.

    Raises:
        InvalidRequest: An option has no meaning; the whole request is refused.
    """
    options = EmbedOptions(
        input_type=enum_value("input_type", request.input_type, INPUT_TYPES, None),
        instruction=(
            decode_text("instruction", request.instruction)
            if request.HasField("instruction")
            else None
        ),
        dimension=request.dimension if request.HasField("dimension") else None,
        normalize=request.normalize if request.HasField("normalize") else True,
        output_type=(
            enum_value("output_type", request.output_type, OUTPUT_TYPES, None)
            if request.output_type
            else None
        ),
        truncation=enum_value("truncation", request.truncation, TRUNCATIONS, Truncation.NONE),
        priority=enum_value("priority", request.priority, PRIORITIES, Priority.INTERACTIVE),
        expected_contract_hash=decode_text(
            "expected_contract_hash", request.expected_contract_hash
        ),
    )
    return [_item(index, item) for index, item in enumerate(request.items)], options


def decode_rerank(request: WireRerankRequest) -> tuple[str, list[str | None], RerankOptions]:
    """Turn a request into query, documents (None where one is not UTF-8) and options.

    Raises:
        InvalidRequest: The query is not UTF-8 or an option has no meaning.
    """
    documents: list[str | None] = []
    for data in request.documents:
        try:
            documents.append(data.decode())
        except UnicodeDecodeError:
            documents.append(None)
    options = RerankOptions(
        instruction=(
            decode_text("instruction", request.instruction)
            if request.HasField("instruction")
            else None
        ),
        top_n=request.top_n if request.HasField("top_n") else None,
        return_documents=request.return_documents,
        raw_scores=request.raw_scores,
        max_tokens_per_document=(
            request.max_tokens_per_document if request.HasField("max_tokens_per_document") else None
        ),
        truncation=enum_value("truncation", request.truncation, TRUNCATIONS, Truncation.NONE),
        priority=enum_value("priority", request.priority, PRIORITIES, Priority.INTERACTIVE),
        expected_contract_hash=decode_text(
            "expected_contract_hash", request.expected_contract_hash
        ),
    )
    return decode_text("query", request.query), documents, options


def item_error(error: EmbedfleetError) -> wire_common.ItemError:
    """Encode why one item has no result."""
    code, reason, field, message = to_item_error(error)
    return wire_common.ItemError(
        code=code, reason=reason.encode(), field=field.encode(), message=message.encode()
    )


def provenance(value: Provenance) -> wire_common.Provenance:
    """Encode what made a result."""
    return wire_common.Provenance(
        model=value.model.encode(),
        revision=value.revision.encode(),
        contract_hash=value.contract_hash.encode(),
    )


def _timings(value: Timings) -> wire_common.Timings:
    return wire_common.Timings(
        tokenize_nanoseconds=round(value.tokenize_seconds * 1e9),
        queue_nanoseconds=round(value.queue_seconds * 1e9),
        compute_nanoseconds=round(value.compute_seconds * 1e9),
        total_nanoseconds=round(value.total_seconds * 1e9),
    )


def _embedding(outcome: EmbedOutcome, is_float32: bool, id_: bytes) -> wire_embedding.Embedding:
    if outcome.error is not None:
        return wire_embedding.Embedding(error=item_error(outcome.error), id=id_)
    if is_float32:
        return wire_embedding.Embedding(
            values=outcome.data,
            num_tokens=outcome.num_tokens,
            truncated=outcome.truncated,
            id=id_,
        )
    return wire_embedding.Embedding(
        packed=outcome.data,
        scale=outcome.scale,
        num_tokens=outcome.num_tokens,
        truncated=outcome.truncated,
        id=id_,
    )


def _embed_fields(result: EmbedResult, made_by: Provenance) -> dict[str, Any]:
    outcomes = result.outcomes
    return {
        "dimension": result.dimension,
        "output_type": OUTPUT_NUMBERS[result.output_type],
        "usage": wire_common.Usage(
            input_tokens=sum(outcome.num_tokens for outcome in outcomes),
            num_items=len(outcomes),
            num_truncated=sum(outcome.truncated for outcome in outcomes),
            num_failed=sum(outcome.error is not None for outcome in outcomes),
        ),
        "timings": _timings(result.timings),
        "provenance": provenance(made_by),
    }


def encode_embed(result: EmbedResult, made_by: Provenance) -> wire_embedding.EmbedResponse:
    """Encode a whole result."""
    is_float32 = result.output_type is OutputType.FLOAT32
    return wire_embedding.EmbedResponse(
        embeddings=[_embedding(outcome, is_float32, b"") for outcome in result.outcomes],
        **_embed_fields(result, made_by),
    )


def encode_embed_stream(
    result: EmbedResult, made_by: Provenance, ids: Sequence[bytes]
) -> wire_embedding.EmbedStreamResponse:
    """Encode the result of one message of a stream, each item with the id its client gave."""
    is_float32 = result.output_type is OutputType.FLOAT32
    return wire_embedding.EmbedStreamResponse(
        embeddings=[
            _embedding(outcome, is_float32, id_)
            for outcome, id_ in zip(result.outcomes, ids, strict=True)
        ],
        **_embed_fields(result, made_by),
    )


def embed_stream_failure(
    request: Any, error: EmbedfleetError
) -> wire_embedding.EmbedStreamResponse:
    """Tell why one message of a stream has no vectors, with the ids of its items if it has any."""
    ids = [item.id for item in getattr(request, "items", ())]
    return wire_embedding.EmbedStreamResponse(
        embeddings=[wire_embedding.Embedding(id=id_) for id_ in ids], error=item_error(error)
    )


def rerank_stream_failure(
    request: Any, error: EmbedfleetError
) -> wire_reranking.RerankStreamResponse:
    """Tell why one message of a stream has no ranking, with its id if it has one."""
    return wire_reranking.RerankStreamResponse(
        id=getattr(request, "id", b""), error=item_error(error)
    )


def encode_rerank(
    result: RerankResult, made_by: Provenance, documents: Sequence[bytes] | None
) -> wire_reranking.RerankResponse:
    """Encode a whole ranking; `documents` are returned with their scores if given."""
    outcomes = result.outcomes
    encoded = []
    for outcome in outcomes:
        row = wire_reranking.RerankResult(
            index=outcome.index,
            score=outcome.score,
            num_tokens=outcome.num_tokens,
            truncated=outcome.truncated,
        )
        if outcome.error is not None:
            row.error.CopyFrom(item_error(outcome.error))
        elif documents is not None:
            row.document = documents[outcome.index]
        encoded.append(row)
    return wire_reranking.RerankResponse(
        results=encoded,
        usage=wire_common.Usage(
            input_tokens=result.input_tokens,
            num_items=result.num_documents,
            num_truncated=result.num_truncated,
            num_failed=result.num_failed,
        ),
        timings=_timings(result.timings),
        provenance=provenance(made_by),
    )
