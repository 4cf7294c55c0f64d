"""Kubernetes' REST API with plain values: list, watch, read, apply, patch, create, delete.

Values stay as the API server writes them: typed models refuse fields that a newer server adds.
How bytes travel is a function, so that tests can lose, double and delay them on their way.
Writes pass a gate first, which only a leader may.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from embedfleet_operator.cluster.kinds import Kind, kind_of
from embedfleet_operator.rendering.manifests import Manifest

__all__ = ["FIELD_MANAGER", "Answer", "Api", "ApiError", "Listing", "Request", "Send"]

FIELD_MANAGER: Final = "embedfleet-operator"
WATCH_SECONDS: Final = 300
_PAGE: Final = 500
_APPLY: Final = "application/apply-patch+yaml"
_JSON_PATCH: Final = "application/json-patch+json"
_READS: Final = ("GET",)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the API server.

    Attributes:
        streams: Whether the answer comes line by line for minutes.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What it says.

    Attributes:
        lines: The lines of a stream; `body` is empty then.
    """

    status: int
    body: bytes = b""
    lines: AsyncIterator[bytes] | None = None


Send = Callable[[Request], Awaitable[Answer]]


class ApiError(Exception):
    """The API server refuses.

    Attributes:
        status: HTTP status.
        reason: The server's word, such as `Conflict`.
    """

    def __init__(self, request: Request, status: int, reason: str, message: str) -> None:
        super().__init__(f"{request.method} {request.path}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed soon."""
        return self.status in (409, 410, 429) or self.status >= 500


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment."""

    items: list[Manifest]
    resource_version: str


class Api:
    """The API server of one cluster.

    Args:
        send: Carries a request there and brings the answer.
        may_write: Raises where this process must not write now.
    """

    def __init__(self, send: Send, may_write: Callable[[], None] = lambda: None) -> None:
        self._send = send
        self._may_write = may_write

    async def list_all(self, kind: Kind, namespace: str = "") -> Listing:
        """List what is watched of a kind, in a namespace or in all."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE)} | _selected(kind)
        while True:
            found = await self._json(Request("GET", kind.path(namespace), query))
            for item in found["items"]:
                # Members of a list carry neither.
                items.append({"apiVersion": kind.api_version, "kind": kind.name, **item})
            following = found["metadata"].get("continue", "")
            if not following:
                return Listing(items, found["metadata"]["resourceVersion"])
            query = {**query, "continue": following}

    async def watch(
        self, kind: Kind, namespace: str, resource_version: str
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield each change after a version, until the server ends the stream.

        Raises:
            ApiError: With status 410 if the version is too old: list again.
        """
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        request = Request("GET", kind.path(namespace), query | _selected(kind), streams=True)
        answer = await self._send(request)
        _check(request, answer)
        async for line in answer.lines or _none():
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise ApiError(
                    request, status.get("code", 500), status.get("reason", ""),
                    status.get("message", ""),
                )  # fmt: skip
            yield event["type"], event["object"]

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Read one object; None if there is none."""
        try:
            return await self._json(Request("GET", kind.path(namespace, name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def apply(
        self, manifest: Manifest, subresource: str = "", *, force: bool = True
    ) -> Manifest:
        """Make an object what the manifest says (server-side apply).

        Args:
            manifest: Whole: what it said before and says no more is taken away.
            subresource: Such as `status`.
            force: Whether also where others said otherwise; if not, that is a conflict.
        """
        query = {"fieldManager": FIELD_MANAGER} | ({"force": "true"} if force else {})
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata["namespace"], metadata["name"], subresource)
        return await self._json(Request("PATCH", path, query, manifest, _APPLY))

    async def patch(
        self, kind: Kind, namespace: str, name: str, operations: list[dict[str, Any]]
    ) -> Manifest:
        """Change single fields (RFC 6902); its tests fail the whole."""
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(namespace, name)
        return await self._json(Request("PATCH", path, query, operations, _JSON_PATCH))

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not be there yet."""
        path = kind_of(manifest).path(manifest["metadata"]["namespace"])
        return await self._json(Request("POST", path, body=manifest))

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object that nobody has changed since it was read."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata["namespace"], metadata["name"])
        return await self._json(Request("PUT", path, body=manifest))

    async def delete(self, manifest: Manifest) -> None:
        """Delete just this object, not a later one of its name; gone already is fine."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata["namespace"], metadata["name"])
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": metadata["uid"]},
            "propagationPolicy": "Background",
        }
        try:
            await self._json(Request("DELETE", path, body=body))
        except ApiError as error:
            # A conflict is another object of the same name.
            if error.status not in (404, 409):
                raise

    async def _json(self, request: Request) -> Manifest:
        if request.method not in _READS:
            self._may_write()
        answer = await self._send(request)
        _check(request, answer)
        found: Manifest = json.loads(answer.body)
        return found


def _selected(kind: Kind) -> dict[str, str]:
    return {"labelSelector": kind.selector} if kind.selector else {}


def _check(request: Request, answer: Answer) -> None:
    if 200 <= answer.status < 300:
        return
    try:
        status = json.loads(answer.body)
        reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        # Not the API server's words but those of something in front of it.
        reason, message = "", answer.body[:500].decode(errors="replace")
    raise ApiError(request, answer.status, reason, message)


async def _none() -> AsyncIterator[bytes]:
    return
    yield b""
