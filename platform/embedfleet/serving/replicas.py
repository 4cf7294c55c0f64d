"""The ingress deployments of models: an engine behind a batcher, one class a role.

Methods decode, call, encode. A replica answers only for its own names, so a call that was routed
wrongly is refused instead of answered with another model's vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import ray
from google.protobuf.message import Message

from embedfleet.config import limit_tokenizers
from embedfleet.errors import EmbedfleetError, InvalidRequest, ModelNotFound, WrongRole
from embedfleet.messages import EmbedResult, Role
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime import (
    EmbedderRuntime,
    LoadedModel,
    ModelRuntime,
    RerankerRuntime,
    load_model,
)
from embedfleet.serving.codec import (
    decode_embed,
    decode_rerank,
    embed_stream_failure,
    encode_embed,
    encode_embed_stream,
    encode_rerank,
    rerank_stream_failure,
)
from embedfleet.serving.describe import decode_tokenize, encode_model, encode_tokenize
from embedfleet.serving.ingress import (
    Call,
    Encoded,
    Ingress,
    StreamHandler,
    UnaryHandler,
    log_to_stderr,
)
from embedfleet.status import to_status
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

__all__ = ["EmbedderReplica", "RerankerReplica"]

_log: Final = logging.getLogger("embedfleet.serving")


class _ModelReplica(Ingress):
    """What replicas of both roles share: names, settings, health, description."""

    def __init__(
        self,
        runtime: ModelRuntime,
        unary: dict[type[Message], UnaryHandler],
        streams: dict[type[Message], StreamHandler],
    ) -> None:
        self._runtime = runtime
        self._names = frozenset({runtime.arguments.name.encode()})
        own: dict[type[Message], UnaryHandler] = {
            wire_model.TokenizeRequest: self._tokenize,
            wire_model.GetModelRequest: self._get_model,
        }
        self._forwardable = {kind.__name__: kind for kind in (*unary, *own)}
        super().__init__(own | unary, streams)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new settings from Serve, under traffic."""
        self._runtime.start()
        settings = ReplicaSettings.model_validate(user_config)
        await self._runtime.reconfigure(settings)
        self.max_message_bytes = settings.max_message_bytes
        names = (self._runtime.arguments.name, *settings.aliases)
        self._names = frozenset(name.encode() for name in names)

    async def check_health(self) -> None:
        """Raise if the engine is dead or stuck, so that Serve replaces the replica."""
        self._runtime.check_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Answer Serve, which hands the numbers to an autoscaling policy as custom metrics."""
        return self._runtime.stats().autoscaling()

    async def __del__(self) -> None:
        await self._runtime.close()

    def _check_name(self, name: bytes) -> None:
        if name in self._names:
            return
        served = ", ".join(sorted(known.decode() for known in self._names))
        if not name:
            raise InvalidRequest(f"model is empty; this replica serves {served}.", field="model")
        raise ModelNotFound(
            f"model is {name.decode(errors='replace')!r}, but this replica serves {served}. "
            "Leave out the `application` metadata to be routed by name.",
            field="model",
        )

    async def _refuse(self, request: Any, call: Call) -> Any:
        """Refuse what only a model of the other role can do."""
        arguments = self._runtime.arguments
        other, rpc = {
            Role.EMBEDDER: (Role.RERANKER, "EmbeddingService.Embed"),
            Role.RERANKER: (Role.EMBEDDER, "RerankingService.Rerank"),
        }[arguments.role]
        raise WrongRole(
            f"model {arguments.name!r} is served as {arguments.role.value}, not as {other.value}. "
            f"Call {rpc}, or name another model: ModelService.ListModels shows all.",
            field="model",
        )

    def _refusing(self, failed: Callable[[Any, EmbedfleetError], Any]) -> StreamHandler:
        return StreamHandler(self._refuse, failed, lambda request: 1)

    async def _tokenize(self, request: Any, call: Call) -> Encoded:
        self._check_name(request.model)
        tokenized = await self._runtime.tokenize(decode_tokenize(request))
        return Encoded(await encode_tokenize(tokenized, self._runtime.provenance))

    async def _get_model(self, request: Any, call: Call) -> wire_model.GetModelResponse:
        self._check_name(request.model)
        return wire_model.GetModelResponse(model=encode_model(self._runtime.description()))

    async def describe(self) -> bytes:
        """Answer the router's question what this model is, as a serialized Model."""
        return encode_model(self._runtime.description()).SerializeToString()

    async def forward(
        self, kind: str, payload: bytes, timeout_seconds: float | None
    ) -> tuple[bytes, bytes]:
        """Answer a request that the router passes on.

        Returns:
            The serialized response and, if it failed instead, the serialized status.
        """
        message = self._forwardable[kind]
        call = Call(timeout_seconds)
        try:
            response = await self._unary[message](message.FromString(payload), call)
        except EmbedfleetError as error:
            return b"", to_status(error).SerializeToString()
        return response.SerializeToString(), b""


class EmbedderReplica(_ModelReplica):
    """Serves one embedder."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._embedder = EmbedderRuntime(_load(args), ReplicaSettings())
        stream = StreamHandler(
            self._embed_message, embed_stream_failure, lambda request: len(request.items)
        )
        super().__init__(
            self._embedder,
            {
                wire_embedding.EmbedRequest: self._embed,
                wire_embedding.EmbedStreamRequest: self._embed_message,
                wire_reranking.RerankRequest: self._refuse,
                wire_reranking.RerankStreamRequest: self._refuse,
            },
            {
                wire_embedding.EmbedStreamRequest: stream,
                wire_reranking.RerankStreamRequest: self._refusing(rerank_stream_failure),
            },
        )

    async def _run(self, request: Any, call: Call) -> EmbedResult:
        self._check_name(request.model)
        items, options = decode_embed(request)
        return await self._embedder.embed(items, options, call.deadline)

    async def _embed(self, request: Any, call: Call) -> wire_embedding.EmbedResponse:
        return encode_embed(await self._run(request, call), self._embedder.provenance)

    async def _embed_message(self, request: Any, call: Call) -> wire_embedding.EmbedStreamResponse:
        result = await self._run(request, call)
        ids = [item.id for item in request.items]
        return encode_embed_stream(result, self._embedder.provenance, ids)


class RerankerReplica(_ModelReplica):
    """Serves one reranker."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._reranker = RerankerRuntime(_load(args), ReplicaSettings())
        stream = StreamHandler(
            self._rerank_message, rerank_stream_failure, lambda request: len(request.documents)
        )
        super().__init__(
            self._reranker,
            {
                wire_reranking.RerankRequest: self._rerank,
                wire_reranking.RerankStreamRequest: self._rerank_message,
                wire_embedding.EmbedRequest: self._refuse,
                wire_embedding.EmbedStreamRequest: self._refuse,
            },
            {
                wire_reranking.RerankStreamRequest: stream,
                wire_embedding.EmbedStreamRequest: self._refusing(embed_stream_failure),
            },
        )

    async def _rerank(self, request: Any, call: Call) -> wire_reranking.RerankResponse:
        self._check_name(request.model)
        query, documents, options = decode_rerank(request)
        result = await self._reranker.rerank(query, documents, options, call.deadline)
        texts = request.documents if options.return_documents else None
        return encode_rerank(result, self._reranker.provenance, texts)

    async def _rerank_message(
        self, request: Any, call: Call
    ) -> wire_reranking.RerankStreamResponse:
        response = await self._rerank(request, call)
        return wire_reranking.RerankStreamResponse(
            results=response.results,
            usage=response.usage,
            timings=response.timings,
            provenance=response.provenance,
            id=request.id,
        )


def _load(args: dict[str, Any]) -> LoadedModel:
    """Load what the arguments name, on the cores that Ray gave this replica."""
    arguments = ReplicaArguments.model_validate(args)
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    num_threads = max(1, int(assigned))
    model = load_model(arguments, num_threads)
    if model.engine.info.device == "cpu":
        limit_tokenizers(num_threads)
    log_to_stderr()
    _log.info(model.summary(num_threads))
    return model
