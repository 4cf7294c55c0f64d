"""The model service's answers: what is served, whether it is ready, and the exact ids of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedfleet.client.batches import Batch, raise_first
from embedfleet.client.decoding import (
    OUTPUT_TYPES,
    broken,
    optional_bytes,
    refuse_other_contract,
    to_error,
    to_provenance,
    to_text,
)
from embedfleet.client.options import CallOptions, TokenizeOptions
from embedfleet.client.results import ModelInfo, Tokenization, TokenizedText
from embedfleet.client.transport import METHODS, Method
from embedfleet.errors import ModelNotFound
from embedfleet.messages import Role
from embedfleet.wire import model_pb2

__all__ = ["TokenizeWork", "to_model_info", "waiting_for"]

_ROLES = {model_pb2.EMBEDDER: Role.EMBEDDER, model_pb2.RERANKER: Role.RERANKER}


@dataclass(frozen=True, slots=True)
class TokenizeWork:
    """Texts to the ids that the engine would compute."""

    method: ClassVar[Method] = METHODS["Tokenize"]
    model: str
    options: TokenizeOptions
    call: CallOptions

    def encode(self, batch: Batch) -> model_pb2.TokenizeRequest:
        """Write one batch as a request message."""
        options = self.options
        return model_pb2.TokenizeRequest(
            model=self.model.encode(),
            texts=batch.texts("texts"),
            input_type=options.input_type,
            instruction=optional_bytes(options.instruction),
            query=optional_bytes(options.query),
            truncation=options.truncation,
        )

    def decode(self, response: model_pb2.TokenizeResponse, batch: Batch) -> Tokenization:
        """Read one batch's ids; raises the first text's error unless errors are kept."""
        if len(response.texts) != len(batch.items):
            raise broken(f"{len(response.texts)} texts for {len(batch.items)}")
        errors = {
            index: to_error(text.error, batch.start)
            for index, text in enumerate(response.texts, batch.start)
            if text.HasField("error")
        }
        if not self.call.keep_errors:
            raise_first(errors, "texts")
        return Tokenization(
            texts=tuple(
                TokenizedText(np.array(text.ids, np.int64), text.truncated)
                for text in response.texts
            ),
            errors=errors,
            provenance=to_provenance(response.provenance),
        )

    def join(self, parts: Sequence[Tokenization]) -> Tokenization:
        """Put the batches of one input together, in order."""
        for part in parts:
            refuse_other_contract(parts[0].provenance, part.provenance)
        return Tokenization(
            texts=tuple(text for part in parts for text in part.texts),
            errors={index: error for part in parts for index, error in part.errors.items()},
            provenance=parts[0].provenance,
        )


def to_model_info(model: model_pb2.Model) -> ModelInfo:
    """Read what the fleet says about a model."""
    if model.role not in _ROLES:
        raise broken(f"role {model.role} of model {to_text(model.name)}")
    return ModelInfo(
        name=to_text(model.name),
        aliases=tuple(to_text(alias) for alias in model.aliases),
        role=_ROLES[model.role],
        ready=model.state == model_pb2.READY,
        message=to_text(model.message),
        source=to_text(model.source),
        revision=to_text(model.revision),
        contract_hash=to_text(model.contract_hash),
        contract={
            field.name: to_text(getattr(model.contract, field.name))
            for field in model_pb2.Contract.DESCRIPTOR.fields
        },
        native_dimension=model.native_dimension,
        default_dimension=model.default_dimension,
        allowed_dimensions=tuple(model.allowed_dimensions),
        max_tokens=model.max_tokens,
        max_items_per_request=model.max_items_per_request,
        default_instruction=to_text(model.default_instruction),
        allow_instruction_override=model.allow_instruction_override,
        output_types=tuple(
            OUTPUT_TYPES[number] for number in model.output_types if number in OUTPUT_TYPES
        ),
        default_output_type=OUTPUT_TYPES.get(model.default_output_type),
        device=to_text(model.device),
        dtype=to_text(model.dtype),
    )


def waiting_for(models: Sequence[ModelInfo], names: Sequence[str]) -> str:
    """Say which of the named models are not ready and why; empty if all are. No names: all."""
    known = {alias: model for model in models for alias in (model.name, *model.aliases)}
    for name in names:
        if name not in known:
            served = ", ".join(model.name for model in models) or "none"
            raise ModelNotFound(f"model is {name!r}; this fleet has: {served}.", field="model")
    wanted = [known[name] for name in names] if names else models
    if not wanted:
        return "the fleet has no model yet"
    return "; ".join(
        f"{model.name}: {model.message or 'not ready'}" for model in wanted if not model.ready
    )
