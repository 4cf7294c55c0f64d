"""ModelService on the wire: what a model is, and the ids it would compute for a text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from embedfleet.errors import EmbedfleetError
from embedfleet.messages import InputType, OutputType, Provenance, Role, Truncation
from embedfleet.runtime import ModelDescription, TokenizeRequest
from embedfleet.serving.codec import (
    INPUT_TYPES,
    OUTPUT_NUMBERS,
    ROLES,
    TRUNCATIONS,
    decode_text,
    enum_value,
    item_error,
    provenance,
)
from embedfleet.tokenization import Tokenized
from embedfleet.wire import model_pb2 as wire_model

__all__ = ["decode_tokenize", "encode_model", "encode_tokenize"]


def decode_tokenize(request: wire_model.TokenizeRequest) -> TokenizeRequest:
    """Turn the wire's request into the platform's.

    Raises:
        InvalidRequest: Text is not UTF-8 or an enum number is unknown.
    """
    input_type: InputType | None = None
    if request.input_type:
        input_type = enum_value("input_type", request.input_type, INPUT_TYPES, None)
    return TokenizeRequest(
        texts=[decode_text(f"texts[{i}]", text) for i, text in enumerate(request.texts)],
        input_type=input_type,
        instruction=(
            decode_text("instruction", request.instruction)
            if request.HasField("instruction")
            else None
        ),
        query=decode_text("query", request.query),
        truncation=enum_value("truncation", request.truncation, TRUNCATIONS, Truncation.NONE),
    )


async def encode_tokenize(
    outcomes: Sequence[Tokenized | EmbedfleetError], made_by: Provenance
) -> bytes:
    """Serialize ids and refusals in the order of the texts, off the event loop.

    A million ids take a quarter of a second.
    """
    return await asyncio.to_thread(
        lambda: _tokenize_response(outcomes, made_by).SerializeToString()
    )


def _tokenize_response(
    outcomes: Sequence[Tokenized | EmbedfleetError], made_by: Provenance
) -> wire_model.TokenizeResponse:
    return wire_model.TokenizeResponse(
        texts=[
            wire_model.TokenizedText(error=item_error(outcome))
            if isinstance(outcome, EmbedfleetError)
            else wire_model.TokenizedText(
                ids=outcome.token_ids.tolist(), truncated=outcome.truncated
            )
            for outcome in outcomes
        ],
        provenance=provenance(made_by),
    )


def encode_model(described: ModelDescription) -> wire_model.Model:
    """Encode what a replica knows about its model."""
    arguments, settings = described.arguments, described.settings
    contract, engine = described.contract, described.engine
    model = wire_model.Model(
        name=arguments.name.encode(),
        aliases=[alias.encode() for alias in settings.aliases],
        role=ROLES[arguments.role],
        state=wire_model.READY,
        source=arguments.source.encode(),
        revision=contract.revision.encode(),
        contract_hash=described.contract_hash.encode(),
        contract=wire_model.Contract(
            source=contract.source.encode(),
            revision=contract.revision.encode(),
            weights_digest=contract.weights_digest.encode(),
            tokenizer_digest=contract.tokenizer_digest.encode(),
            template=contract.template.encode(),
            pooling=contract.pooling.encode(),
            normalization=contract.normalization.encode(),
            weight_quantization=contract.weight_quantization.encode(),
        ),
        max_tokens=described.max_tokens,
        max_items_per_request=settings.batching.max_items_per_request,
        default_instruction=settings.default_instruction.encode(),
        allow_instruction_override=settings.allow_instruction_override,
        device=engine.device.encode(),
        dtype=engine.dtype.encode(),
    )
    if arguments.role is Role.EMBEDDER:
        model.native_dimension = engine.native_dimension
        model.default_dimension = settings.default_dimension or engine.native_dimension
        model.allowed_dimensions.extend(settings.allowed_dimensions)
        default: Any = OUTPUT_NUMBERS[settings.default_output_type]
        model.default_output_type = default
        numbers: list[Any] = [OUTPUT_NUMBERS[kind] for kind in OutputType]
        model.output_types.extend(numbers)
    return model
