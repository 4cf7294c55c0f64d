"""An operator in this process against a real API server, and a wire that faults are put on.

What it all comes to is compared without what differs between two runs that went alike: times,
identities, digests of them, the namespace.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from control_plane import ADMIN, ControlPlane
from kubernetes.aio.client import ApiClient
from operator_rights import ACCOUNT, address, lease_rights

from embedfleet_operator.acting.fleets import Connect
from embedfleet_operator.cluster.api import Answer, Api, Request, Send
from embedfleet_operator.cluster.kinds import CUSTOM, OWNED, Kind, kind_of
from embedfleet_operator.cluster.transport import credentials, transport
from embedfleet_operator.process import Connections, Operator
from embedfleet_operator.rendering import Manifest
from embedfleet_operator.settings import Settings

__all__ = [
    "PATIENCE_SECONDS",
    "Crash",
    "Fault",
    "Wire",
    "World",
    "fixed_point",
    "is_write",
    "no_fault",
    "operating",
    "wired",
]


PATIENCE_SECONDS = 300.0
"""A machine that does much else meanwhile needs minutes for what an idle one does in seconds."""


class Crash(BaseException):
    """The process is gone: no handler of exceptions runs any more."""


def is_write(request: Request) -> bool:
    """Whether a request changes anything but the lease."""
    return request.method != "GET" and not request.path.startswith("/apis/coordination.k8s.io/")


Fault = Callable[["Wire", Request, Send], Awaitable[Answer]]


async def no_fault(wire: Wire, request: Request, carry: Send) -> Answer:
    return await carry(request)


@dataclass
class Wire:
    """Carries requests, notes the writes, and does to each what a fault says.

    Attributes:
        log: When each write was begun and ended, and what it was.
        open_writes: Those that are not answered yet.
    """

    carry: Send
    fault: Fault = no_fault
    log: list[tuple[float, float, str]] = field(default_factory=list)
    writes: int = 0
    calls: int = 0
    open_writes: int = 0

    async def send(self, request: Request) -> Answer:
        if not is_write(request):
            self.calls += not request.streams and "coordination" not in request.path
            return await self.fault(self, request, self.carry)
        self.writes += 1
        self.calls += 1
        self.open_writes += 1
        began = time.monotonic()
        try:
            return await self.fault(self, request, self.carry)
        finally:
            self.open_writes -= 1
            self.log.append((began, time.monotonic(), f"{request.method} {request.path}"))

    async def quiet(self, seconds: float, within: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing was written for so long."""
        asked = time.monotonic()
        until = asked + within
        while True:
            last = max(asked, self.log[-1][1] if self.log else asked)
            remaining = seconds if self.open_writes else last + seconds - time.monotonic()
            if remaining <= 0:
                return
            assert time.monotonic() < until, f"no rest: {[each[2] for each in self.log[-20:]]}"
            await asyncio.sleep(remaining)


@dataclass
class World:
    """A namespace of an API server as a user has it."""

    plane: ControlPlane
    namespace: str
    send: Send

    @property
    def api(self) -> Api:
        return Api(self.send)

    @classmethod
    @asynccontextmanager
    async def of(cls, plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
        """Create a namespace in which the chart's account may hold a lease."""
        async with _patient(plane) as send:
            body: Manifest = {"metadata": {"name": namespace}}
            requests = [Request("POST", "/api/v1/namespaces", body=body)]
            requests += [
                Request("POST", address(each), body=each) for each in lease_rights(namespace)
            ]
            for request in requests:
                answer = await send(request)
                assert answer.status == 201, answer.body
            yield cls(plane, namespace, send)

    async def create(self, *manifests: Manifest) -> None:
        for each in manifests:
            await self.api.create(self._inside(each))

    async def change(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """Set fields of a spec."""
        live = await self.api.get(kind_of(kind), self.namespace, name)
        assert live is not None
        changed = self._inside({**live, "spec": {**live["spec"], **spec}})
        await self.api.replace(changed)

    async def delete(self, kind: str, name: str) -> None:
        live = await self.api.get(kind_of(kind), self.namespace, name)
        assert live is not None
        await self.api.delete(live)

    async def get(self, kind: str, name: str) -> Manifest:
        return await self.api.get(kind_of(kind), self.namespace, name) or {}

    async def reaches(self, expected: Any, wire: Wire, within: float = PATIENCE_SECONDS) -> None:
        """Wait until everything is as expected, looking only while nothing is written."""
        until = time.monotonic() + within
        while True:
            await wire.quiet(0.6, within)
            found = await fixed_point(self)
            if found == expected:
                return
            assert time.monotonic() < until, "\n".join(differences(found, expected))
            await asyncio.sleep(0.4)

    def _inside(self, manifest: Manifest) -> Manifest:
        text = json.dumps(manifest).replace("NAMESPACE", self.namespace)
        found: Manifest = {"apiVersion": "embedfleet.io/v1alpha1", **json.loads(text)}
        found["metadata"]["namespace"] = self.namespace
        return found


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """List where two values differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted({*found, *expected})
        inner = ((found.get(key), expected.get(key), f"{path}.{key}") for key in keys)
        return [line for each in inner for line in differences(*each)]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for n, pair in pairs for line in differences(*pair, f"{path}[{n}]")]
    return [] if found == expected else [f"{path}: {found!r:.300} is not {expected!r:.300}"]


_VOLATILE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST = re.compile(r"\b[0-9a-f]{12,64}\b")


async def fixed_point(world: World) -> dict[str, Any]:
    """Read every resource's status and every object that was made for it."""
    kinds: list[Kind] = [*CUSTOM, *(kind for kind in OWNED if kind.name in _INSTALLED)]
    lists = await asyncio.gather(*(world.api.list_all(kind, world.namespace) for kind in kinds))
    found = {}
    for item in (item for listing in lists for item in listing.items):
        metadata = item["metadata"]
        owners = [f"{each['kind']}/{each['name']}" for each in metadata.get("ownerReferences", ())]
        kept = {
            "labels": metadata.get("labels"),
            "annotations": metadata.get("annotations"),
            "finalizers": metadata.get("finalizers"),
            "owners": owners,
            "is going": "deletionTimestamp" in metadata,
            **{part: item.get(part) for part in ("spec", "data", "status")},
        }
        for history in ("changing", "lastChanges"):
            # How long what took, and what was left of it after a crash.
            (kept["status"] or {}).pop(history, None)
        if item["kind"] == "Service":
            kept["spec"] = {k: v for k, v in kept["spec"].items() if "clusterIP" not in k}
        found[f"{item['kind']}/{metadata['name']}"] = kept
    text = json.dumps(found, sort_keys=True).replace(world.namespace, "NAMESPACE")
    parsed: dict[str, Any] = json.loads(_DIGEST.sub("DIGEST", _VOLATILE.sub("VOLATILE", text)))
    return parsed


_INSTALLED = (
    "NetworkPolicy", "ConfigMap", "Service", "PersistentVolumeClaim", "Deployment",
    "PodDisruptionBudget", "Job", "RayService",
)  # fmt: skip


@asynccontextmanager
async def operating(
    wire: Wire, connect: Connect, settings: Settings, *, leading: bool = True
) -> AsyncIterator[Operator]:
    """Run an operator, and a new one whenever it crashes; the block sees the first."""

    async def supervise(first: Operator) -> None:
        running = first
        while True:
            try:
                await running.run()
            except BaseExceptionGroup as ended:
                if not ended.subgroup(Crash):
                    raise
                running = Operator(settings, Connections(wire.send, connect))

    first = Operator(settings, Connections(wire.send, connect))
    task = asyncio.create_task(supervise(first))
    try:
        while (first.not_ready() or first.lease.leads < leading) and not task.done():
            await asyncio.sleep(0.05)
        yield first
        assert not task.done(), await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def wired(plane: ControlPlane, fault: Fault = no_fault) -> AsyncIterator[Wire]:
    """Open connections with exactly the rights of the chart's account."""
    token = await asyncio.to_thread(plane.token, "system", ACCOUNT)
    async with _client(plane, token) as send:
        yield Wire(send, fault)


@asynccontextmanager
async def _patient(plane: ControlPlane) -> AsyncIterator[Send]:
    """Open connections of a user, who waits as long as it takes."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    context = ssl.create_default_context(cafile=plane.folder / "certs" / "apiserver.crt")
    async with aiohttp.ClientSession(
        plane.url, headers=headers, timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS),
        # Few, and kept: a handshake costs more than a list.
        connector=aiohttp.TCPConnector(ssl=context, limit=2, keepalive_timeout=PATIENCE_SECONDS),
    ) as client:  # fmt: skip

        async def send(request: Request) -> Answer:
            while True:
                async with client.request(
                    request.method, request.path, params=dict(request.query), json=request.body
                ) as response:
                    content = await response.read()
                # Storage of a kind starts with its first request.
                if response.status not in (429, 503):
                    return Answer(response.status, content)
                await asyncio.sleep(0.2)

        yield send


@asynccontextmanager
async def _client(plane: ControlPlane, token: str) -> AsyncIterator[Send]:
    async with AsyncExitStack() as stack:
        configuration = await credentials(str(plane.kubeconfig(token)))
        yield transport(await stack.enter_async_context(ApiClient(configuration)))
