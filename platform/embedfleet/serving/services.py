"""Which gRPC methods a fleet answers, and how their request bytes become messages.

Serve learns its services once, when a cluster starts, from import paths of functions in the form of
generated `add_..._to_server` functions, and calls the ingress method of the same name. These
functions differ from the generated ones in two ways: requests of our own services are decoded to
their wire twins, so that text which is not UTF-8 reaches the item it belongs to, and bytes are
parsed only by who can refuse politely what is too large or no message at all, instead of inside
gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from embedfleet.compat import kserve_pb2, tei_pb2
from embedfleet.errors import InvalidRequest, TooLarge

# Reflection describes what is in the default descriptor pool, so the published messages must be
# imported although requests are decoded to their twins.
from embedfleet.v1 import embedding_pb2, model_pb2, reranking_pb2, retrieval_pb2  # noqa: F401
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

__all__ = [
    "SERVICES",
    "Received",
    "Rpc",
    "add_embedding",
    "add_health",
    "add_kserve",
    "add_model",
    "add_reranking",
    "add_retrieval",
    "add_tei_embed",
    "add_tei_info",
    "add_tei_predict",
    "add_tei_rerank",
    "add_tei_tokenize",
]


class Received:
    """A request as it came.

    Args:
        kind: What its bytes should be.
        data: The bytes, decompressed.
    """

    __slots__ = ("_data", "kind")

    def __init__(self, kind: type[Message], data: bytes) -> None:
        self.kind = kind
        self._data = data

    def parse(self, max_bytes: int) -> Message:
        """Turn the bytes into the message, once: they are let go of.

        Raises:
            TooLarge: There are more than `max_bytes`; they were not looked at.
            InvalidRequest: They are not such a message.
        """
        data, self._data = self._data, b""
        if len(data) > max_bytes:
            raise TooLarge(
                f"message is {len(data)} bytes when decompressed; this fleet takes at most "
                f"{max_bytes} (Fleet spec.grpc.maxMessageBytes): send fewer items at a time."
            )
        try:
            return self.kind.FromString(data)
        except DecodeError as error:
            raise InvalidRequest(
                f"The request's bytes are not a {self.kind.DESCRIPTOR.full_name}: {error}. Check "
                "that client and server use the same proto files, and that all text is UTF-8."
            ) from error


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method: what its requests decode to, and whether either side is a stream.

    A client stream with a single answer has the wire form of a bidirectional stream that answers
    once, and is served as such: ingress methods of one name are then of one kind.
    """

    request: type[Message]
    client_stream: bool = False
    server_stream: bool = False


SERVICES: Final[Mapping[str, Mapping[str, Rpc]]] = {
    "embedfleet.v1.EmbeddingService": {
        "Embed": Rpc(wire_embedding.EmbedRequest),
        "EmbedStream": Rpc(wire_embedding.EmbedStreamRequest, True, True),
    },
    "embedfleet.v1.RerankingService": {
        "Rerank": Rpc(wire_reranking.RerankRequest),
        "RerankStream": Rpc(wire_reranking.RerankStreamRequest, True, True),
    },
    "embedfleet.v1.ModelService": {
        "ListModels": Rpc(wire_model.ListModelsRequest),
        "GetModel": Rpc(wire_model.GetModelRequest),
        "Tokenize": Rpc(wire_model.TokenizeRequest),
    },
    "embedfleet.v1.RetrievalService": {
        "Retrieve": Rpc(retrieval_pb2.RetrieveRequest),
    },
    "grpc.health.v1.Health": {
        "Check": Rpc(health_pb2.HealthCheckRequest),
        "List": Rpc(health_pb2.HealthListRequest),
        "Watch": Rpc(health_pb2.HealthCheckRequest, server_stream=True),
    },
    "inference.GRPCInferenceService": {
        "ServerLive": Rpc(kserve_pb2.ServerLiveRequest),
        "ServerReady": Rpc(kserve_pb2.ServerReadyRequest),
        "ModelReady": Rpc(kserve_pb2.ModelReadyRequest),
        "ServerMetadata": Rpc(kserve_pb2.ServerMetadataRequest),
        "ModelMetadata": Rpc(kserve_pb2.ModelMetadataRequest),
        "ModelInfer": Rpc(kserve_pb2.ModelInferRequest),
    },
    "tei.v1.Info": {"Info": Rpc(tei_pb2.InfoRequest)},
    "tei.v1.Embed": {
        "Embed": Rpc(tei_pb2.EmbedRequest),
        "EmbedStream": Rpc(tei_pb2.EmbedRequest, True, True),
        "EmbedSparse": Rpc(tei_pb2.EmbedSparseRequest),
        "EmbedSparseStream": Rpc(tei_pb2.EmbedSparseRequest, True, True),
        "EmbedAll": Rpc(tei_pb2.EmbedAllRequest),
        "EmbedAllStream": Rpc(tei_pb2.EmbedAllRequest, True, True),
    },
    "tei.v1.Predict": {
        "Predict": Rpc(tei_pb2.PredictRequest),
        "PredictPair": Rpc(tei_pb2.PredictPairRequest),
        "PredictStream": Rpc(tei_pb2.PredictRequest, True, True),
        "PredictPairStream": Rpc(tei_pb2.PredictPairRequest, True, True),
    },
    "tei.v1.Rerank": {
        "Rerank": Rpc(tei_pb2.RerankRequest),
        "RerankStream": Rpc(tei_pb2.RerankStreamRequest, True, True),
    },
    "tei.v1.Tokenize": {
        "Tokenize": Rpc(tei_pb2.EncodeRequest),
        "TokenizeStream": Rpc(tei_pb2.EncodeRequest, True, True),
        "Decode": Rpc(tei_pb2.DecodeRequest),
        "DecodeStream": Rpc(tei_pb2.DecodeRequest, True, True),
    },
}


class _Server(Protocol):
    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: tuple[grpc.GenericRpcHandler, ...]
    ) -> None: ...


def _handler(servicer: Any, name: str, rpc: Rpc) -> grpc.RpcMethodHandler:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[rpc.client_stream, rpc.server_stream]
    return make(getattr(servicer, name), request_deserializer=partial(Received, rpc.request))


def _registrar(service: str) -> Callable[[Any, _Server], None]:
    def add(servicer: Any, server: _Server) -> None:
        handlers = {name: _handler(servicer, name, rpc) for name, rpc in SERVICES[service].items()}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, handlers),),
        )

    return add


add_embedding = _registrar("embedfleet.v1.EmbeddingService")
add_reranking = _registrar("embedfleet.v1.RerankingService")
add_model = _registrar("embedfleet.v1.ModelService")
add_retrieval = _registrar("embedfleet.v1.RetrievalService")
add_health = _registrar("grpc.health.v1.Health")
add_kserve = _registrar("inference.GRPCInferenceService")
add_tei_info = _registrar("tei.v1.Info")
add_tei_embed = _registrar("tei.v1.Embed")
add_tei_predict = _registrar("tei.v1.Predict")
add_tei_rerank = _registrar("tei.v1.Rerank")
add_tei_tokenize = _registrar("tei.v1.Tokenize")
