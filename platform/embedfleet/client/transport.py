"""Channels, methods and the translation of gRPC's failures, for blocking and asyncio clients alike.

Knows paths and message classes, nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from embedfleet.client.options import ClientConfig, Tls
from embedfleet.client.retrying import Deadline
from embedfleet.errors import (
    Cancelled,
    DeadlineExceeded,
    EmbedfleetError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from embedfleet.status import from_status
from embedfleet.wire import embedding_pb2, model_pb2, reranking_pb2

__all__ = ["METHODS", "Method", "Target", "closed", "rich_status", "translate"]

_LOST_REPLICA: Final = "The actor "
"""Ray's own words, as INTERNAL, for a call that Serve's fallback proxy had passed on: the actor
died, or cannot be reached (Ray 2.60, python/ray/exceptions.py). Calls may be made again."""
_DROPPED: Final = "Request dropped due to backpressure"
"""Ray's own words, as RESOURCE_EXHAUSTED, where more calls wait for a replica than Serve keeps (Ray
2.60, python/ray/serve/exceptions.py): nothing is wrong with the call."""
_RETRY_SECONDS: Final = 2.0
"""As the edge says it, for clients that call Serve without one."""


@dataclass(frozen=True, slots=True)
class Method:
    """One unary RPC: its path and its message classes, as the channel wants them."""

    path: str
    request: Any
    response: Any

    def bind(self, channel: Any) -> Any:
        """Make the callable of a blocking or asyncio channel."""
        return channel.unary_unary(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )


_SERVICES = {
    "EmbeddingService": (embedding_pb2, ("Embed",)),
    "RerankingService": (reranking_pb2, ("Rerank",)),
    "ModelService": (model_pb2, ("ListModels", "GetModel", "Tokenize")),
}
METHODS = {
    name: Method(
        f"/embedfleet.v1.{service}/{name}",
        getattr(module, f"{name}Request"),
        getattr(module, f"{name}Response"),
    )
    for service, (module, names) in _SERVICES.items()
    for name in names
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a fleet is and what every call to it carries.

    Attributes:
        endpoint: `host:port`.
        token: Sent as bearer token with every call; a secret, so left out of the text form.
    """

    endpoint: str
    tls: Tls | None
    token: str

    def __post_init__(self) -> None:
        """Refuse what is not host:port before gRPC takes it for a host name to look up."""
        host, _, port = self.endpoint.rpartition(":")
        if "/" in self.endpoint or not host or not port.isdecimal():
            raise InvalidRequest(
                f"endpoint is {self.endpoint!r}; give host:port, such as 127.0.0.1:9000.",
                field="endpoint",
            )

    def __repr__(self) -> str:
        return f"Target({self.endpoint!r})"

    def metadata(self) -> Sequence[tuple[str, str]]:
        """Headers of every call."""
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    def open(self, library: Any, config: ClientConfig) -> Any:
        """Open a channel of `grpc` or `grpc.aio`, which name their functions alike."""
        options = self._options(config)
        if self.tls is None:
            return library.insecure_channel(self.endpoint, options)
        return library.secure_channel(self.endpoint, _credentials(self.tls), options)

    def _options(self, config: ClientConfig) -> list[tuple[str, int | str]]:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", config.max_message_bytes),
            ("grpc.max_receive_message_length", config.max_message_bytes),
            # Notices a dead peer under a long call; not below what gRPC servers put up with.
            ("grpc.keepalive_time_ms", 300_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # Default 1 s: longer than the first retries take together.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.primary_user_agent", "embedfleet"),
        ]
        host = self.endpoint.rpartition(":")[0].strip("[]")
        if host in ("localhost", "::1") or host.startswith("127."):
            # A proxy set for the machine must not swallow calls that never leave it.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def translate(failure: Any, target: Target, deadline: Deadline) -> EmbedfleetError:
    """Build the platform's error of a call that failed in `grpc` or `grpc.aio`."""
    status = rich_status(failure)
    error = from_status(failure.code(), failure.details() or "", status)
    if status is None and isinstance(error, DeadlineExceeded):
        return deadline.exceeded()
    if status is None and isinstance(error, Unavailable):
        return Unavailable(
            f"endpoint {target.endpoint} does not answer: {error.message.rstrip('.')}. "
            "Is the fleet running there? `embedfleet status` tells."
        )
    if status is None and isinstance(error, ModelNotFound) and _is_of_serve(error.message):
        return Unavailable(
            f"the model is starting, or starts again: {error.message}",
            retry_after_seconds=_RETRY_SECONDS,
        )
    if status is None and (failure.details() or "").startswith(_LOST_REPLICA):
        return Unavailable(f"a replica ended while it worked on the call: {error.message}")
    if status is None and isinstance(error, TooLarge) and error.message.startswith(_DROPPED):
        return Overloaded(
            f"too many calls wait for a replica of this model: {error.message}",
            retry_after_seconds=_RETRY_SECONDS,
        )
    if status is None and isinstance(error, TooLarge):
        return TooLarge(f"{error.message}. Send fewer or shorter items in one call.")
    return error


def rich_status(failure: Any) -> status_pb2.Status | None:
    """Read what a failed call says beyond its code and message; None if nothing that fits them."""
    try:
        found: status_pb2.Status | None = rpc_status.from_call(failure)
    except (ValueError, DecodeError):
        # Details that contradict the call: the call's own code counts.
        return None
    return found


def _is_of_serve(message: str) -> bool:
    """Whether Serve's proxies say that they know no application, which is what the edge chose.

    The edge knows the fleet's models; Serve does not before it has started them (Ray 2.60,
    serve/_private/proxy.py). The platform's own answer about a wrong name carries details.
    """
    return message.startswith("Application '") and "not found" in message


def closed() -> EmbedfleetError:
    """Build the error of a call on a closed client."""
    return Cancelled("The client is closed; open another one.")


def _credentials(tls: Tls) -> Any:
    files = (tls.root_certificates, tls.private_key, tls.certificate)
    if (tls.certificate is None) != (tls.private_key is None):
        raise InvalidRequest(
            "tls has only one of certificate and private_key; a client certificate needs both.",
            field="tls",
        )
    try:
        return grpc.ssl_channel_credentials(*(path and path.read_bytes() for path in files))
    except OSError as failure:
        raise InvalidRequest(
            f"tls: {failure.filename} cannot be read: {failure.strerror}.", field="tls"
        ) from failure
