"""Calls of a fleet as any gRPC client makes them: no metadata, bytes where tests want bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from embedfleet.v1 import embedding_pb2, model_pb2, reranking_pb2

PACKAGES = {
    "EmbeddingService": embedding_pb2,
    "RerankingService": reranking_pb2,
    "ModelService": model_pb2,
}
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TIMEOUT_SECONDS = 60.0
"""Long enough for a machine that does much else: no test measures time."""


@dataclass(frozen=True)
class Refusal:
    """Why a call failed: the code, the text, and the details that machines read."""

    code: grpc.StatusCode
    message: str
    reason: str
    field: str
    retry_seconds: float | None

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refusal:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        hinted = False
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    detail.Unpack(info)
                    hinted = detail.Unpack(retry) or hinted
        return cls(
            error.code(),
            error.details() or "",
            info.reason,
            info.metadata.get("field", ""),
            retry.retry_delay.ToNanoseconds() / 1e9 if hinted else None,
        )


class Caller:
    """One channel to a fleet.

    Args:
        endpoint: `host:port`.
    """

    def __init__(self, endpoint: str) -> None:
        # Each caller has a connection of its own, whatever else the process talks to.
        own = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(endpoint, options=own)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def method(self, name: str, kind: str = "unary_unary") -> Any:
        """Give a call of `Service/Method` that takes messages or bytes and answers messages."""
        service, _, method = name.partition("/")
        response = getattr(PACKAGES[service], f"{method}Response")
        return getattr(self.channel, kind)(
            f"/embedfleet.v1.{name}",
            request_serializer=lambda m: m.SerializeToString() if isinstance(m, Message) else m,
            response_deserializer=response.FromString,
        )

    def call(self, name: str, request: Any, **options: Any) -> Any:
        return self.method(name)(request, **{"timeout": TIMEOUT_SECONDS, **options})

    def stream(self, name: str, requests: Any, **options: Any) -> Any:
        return self.method(name, "stream_stream")(
            iter(requests), **{"timeout": TIMEOUT_SECONDS, **options}
        )

    def refusal(self, name: str, request: Any, **options: Any) -> Refusal:
        try:
            answer = self.call(name, request, **options)
        except grpc.RpcError as error:
            return Refusal.of(error)
        raise AssertionError(f"{name} was not refused: {answer}")


def texts(model: str, *values: str, **options: Any) -> embedding_pb2.EmbedRequest:
    options.setdefault("input_type", "DOCUMENT")
    items = [embedding_pb2.EmbedItem(text=value) for value in values]
    return embedding_pb2.EmbedRequest(model=model, items=items, **options)


def ids(model: str, *values: list[int], **options: Any) -> embedding_pb2.EmbedRequest:
    request = texts(model, **options)
    for value in values:
        request.items.add().token_ids.ids.extend(value)
    return request


def pairs(model: str, query: str, *documents: str, **options: Any) -> reranking_pb2.RerankRequest:
    return reranking_pb2.RerankRequest(model=model, query=query, documents=documents, **options)
