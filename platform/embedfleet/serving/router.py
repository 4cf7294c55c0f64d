"""The application `router`: everything the edge cannot send straight to a model.

It lists models, answers health checks, names the known models when one is unknown, and forwards
requests that the edge could not read (compressed messages, streams that stay silent at first) to
their model's application through Serve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final

from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from embedfleet.errors import EmbedfleetError, InvalidRequest, ModelNotFound, Unavailable
from embedfleet.rendering.replica import RoutedModel, RouterSettings
from embedfleet.serving.codec import (
    ROLES,
    decode_text,
    embed_stream_failure,
    rerank_stream_failure,
)
from embedfleet.serving.ingress import Call, Encoded, Ingress, StreamHandler, UnaryHandler, refuse
from embedfleet.serving.running import Ask, RunningApplications, ask_serve
from embedfleet.serving.services import SERVICES, Received
from embedfleet.status import from_status
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

__all__ = ["Router"]

Find = Callable[[str], DeploymentHandle]
"""Finds the handle of an application, or raises what Serve does."""

DESCRIBE_TIMEOUT_SECONDS: Final = 2.0
HEALTH_WATCH_SECONDS: Final = 5.0


class Router(Ingress):
    """Ingress of the application `router`; its settings name every model of the fleet."""

    def __init__(self, ask: Ask = ask_serve, find: Find = serve.get_app_handle) -> None:
        self._settings = RouterSettings(fleet="")
        self._by_name: dict[str, RoutedModel] = {}
        self._find_handle = find
        self._handles: dict[str, asyncio.Task[DeploymentHandle]] = {}
        self._running = RunningApplications(ask)
        unary: dict[type[Message], UnaryHandler] = {
            wire_embedding.EmbedRequest: self._forward,
            wire_reranking.RerankRequest: self._forward,
            wire_model.TokenizeRequest: self._forward,
            wire_model.GetModelRequest: self._get_model,
            wire_model.ListModelsRequest: self._list_models,
            health_pb2.HealthCheckRequest: self._check,
            health_pb2.HealthListRequest: self._list_health,
        }
        streams: dict[type[Message], StreamHandler] = {
            wire_embedding.EmbedStreamRequest: StreamHandler(
                self._forward, embed_stream_failure, lambda request: len(request.items)
            ),
            wire_reranking.RerankStreamRequest: StreamHandler(
                self._forward, rerank_stream_failure, lambda request: len(request.documents)
            ),
        }
        super().__init__(unary, streams)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the fleet's models from Serve."""
        self._settings = RouterSettings.model_validate(user_config)
        self.max_message_bytes = self._settings.max_message_bytes
        self._by_name = {
            name: model for model in self._settings.models for name in (model.name, *model.aliases)
        }

    def _find(self, field: str, name: bytes) -> RoutedModel:
        asked = decode_text(field, name)
        model = self._by_name.get(asked)
        if model is not None:
            return model
        known = ", ".join(f"{m.name} ({m.role.value})" for m in self._settings.models) or "none"
        if not asked:
            raise InvalidRequest(f"{field} is empty; name one of: {known}.", field=field)
        raise ModelNotFound(
            f"{field} is {asked!r}, which fleet {self._settings.fleet!r} does not serve. "
            f"Use one of: {known}.",
            field=field,
        )

    async def _handle(self, application: str) -> DeploymentHandle:
        found = self._handles.get(application)
        if found is None:
            # Asks Serve's controller, and blocks a thread while that restarts: one for all callers.
            found = asyncio.create_task(asyncio.to_thread(self._find_handle, application))
            self._handles[application] = found
            found.add_done_callback(partial(self._forget_failed, application))
        # One caller's cancellation must not cancel the answer for the others.
        return await asyncio.shield(found)

    def _forget_failed(self, application: str, found: asyncio.Task[DeploymentHandle]) -> None:
        if found.cancelled() or found.exception() is not None:
            del self._handles[application]

    async def _forward(self, request: Any, call: Call) -> Any:
        model = self._find("model", request.model)
        remaining = None if call.deadline is None else call.deadline - time.monotonic()
        try:
            handle = await self._handle(model.application)
            payload, status = await handle.forward.remote(
                type(request).__name__, request.SerializeToString(), remaining
            )
        except (RayError, RayServeException) as error:
            raise Unavailable(
                f"model {model.name!r} cannot answer now: {error}. Try again shortly.",
                retry_after_seconds=1.0,
            ) from error
        if status:
            failure = status_pb2.Status.FromString(status)
            code = next(c for c in StatusCode if c.value[0] == failure.code)
            raise from_status(code, failure.message, failure)
        return Encoded(payload)

    async def _describe(self, model: RoutedModel) -> wire_model.Model:
        described = wire_model.Model(
            name=model.name.encode(),
            aliases=[alias.encode() for alias in model.aliases],
            role=ROLES[model.role],
            state=wire_model.NOT_READY,
            source=model.source.encode(),
            revision=model.revision.encode(),
        )
        if model.application not in await self._running.get():
            described.message = b"No replica is running: starting, failed, or scaled to zero."
            return described
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                handle = await self._handle(model.application)
                payload = await handle.describe.remote()
        except (RayError, RayServeException, TimeoutError) as error:
            described.message = f"No replica answered: {type(error).__name__}.".encode()
            return described
        return wire_model.Model.FromString(payload)

    async def _list_models(self, request: Any, call: Call) -> wire_model.ListModelsResponse:
        wanted = self._settings.models
        if request.model:
            wanted = (self._find("model", request.model),)
        models = await asyncio.gather(*(self._describe(model) for model in wanted))
        return wire_model.ListModelsResponse(models=models)

    async def _get_model(self, request: Any, call: Call) -> wire_model.GetModelResponse:
        model = self._find("model", request.model)
        return wire_model.GetModelResponse(model=await self._describe(model))

    async def _check(self, request: Any, call: Call) -> health_pb2.HealthCheckResponse:
        """Tell a service's or a model's health; the empty name means the fleet."""
        if not request.service or request.service in SERVICES:
            return _health(True)
        model = self._by_name.get(request.service)
        if model is None:
            raise ModelNotFound(
                f"service is {request.service!r}, which is neither a service nor a model here. "
                "Health.List names all of them.",
                field="service",
            )
        return _health(model.application in await self._running.get())

    async def _list_health(self, request: Any, call: Call) -> health_pb2.HealthListResponse:
        models = self._settings.models
        running = await self._running.get()
        statuses = {name: _health(True) for name in ("", *SERVICES)}
        statuses |= {model.name: _health(model.application in running) for model in models}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Received, grpc_context: Any) -> AsyncGenerator[Any, None]:
        """Send a health status now and at every change, until the caller leaves.

        As grpc/health/v1/health.proto wants it, a name that is not known yet is a status too; and
        so is a health that cannot be told, as while Serve's controller is away for long.
        """
        try:
            asked = request.parse(self.max_message_bytes)
        except EmbedfleetError as error:
            yield refuse(grpc_context, error)
            return
        last: Any = None
        while True:
            try:
                health = await self._check(asked, Call.of(grpc_context))
            except ModelNotFound:
                unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                health = health_pb2.HealthCheckResponse(status=unknown)
            except Unavailable:
                health = health_pb2.HealthCheckResponse(
                    status=health_pb2.HealthCheckResponse.UNKNOWN
                )
            if health.status != last:
                last = health.status
                yield health
            await asyncio.sleep(HEALTH_WATCH_SECONDS)


def _health(is_serving: bool) -> health_pb2.HealthCheckResponse:
    status = health_pb2.HealthCheckResponse
    return status(status=status.SERVING if is_serving else status.NOT_SERVING)
