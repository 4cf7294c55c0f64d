"""A node that runs pods as processes of this machine: `python -m e2e.node FILE`.

Ends with the process that started it, and everything that it runs ends with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import shutil
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from e2e.network import Network
from e2e.place import Image, Place
from e2e.pods import Pod
from e2e.services import Services

__all__ = ["Node", "Orders"]

NAME = "here"
_log = logging.getLogger("node")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_KINDS = {"ConfigMap": "configmaps", "Secret": "secrets"}
_PR_SET_PDEATHSIG = 1
_LAST_SECONDS = 1.0


@dataclass(frozen=True)
class Orders:
    """What a node is told.

    Attributes:
        api: Address of the API server.
        token: With every right.
        certificate: File that it is verified with.
        path: Where containers find programs first.
        images: Command and folder, by image.
    """

    api: str
    token: str
    certificate: str
    folder: str
    memory: str
    owner: int
    subnet: str
    path: str
    kept: tuple[str, ...]
    images: dict[str, dict[str, Any]]


class Node:
    """Binds pods to itself and runs them."""

    def __init__(self, orders: Orders) -> None:
        context = ssl.create_default_context(cafile=orders.certificate)
        said: dict[str, Any] = {
            "base_url": orders.api,
            "headers": {"Authorization": f"Bearer {orders.token}"},
            "verify": context,
            "trust_env": False,
        }
        self._client = httpx.AsyncClient(**said, timeout=60)
        self._blocking = httpx.Client(**said, timeout=60)
        network = Network(orders.owner, orders.subnet)
        self._services = Services(network)
        host, _, port = orders.api.removeprefix("https://").partition(":")
        self._place = Place(
            network=network,
            folder=Path(orders.folder),
            memory=Path(orders.memory),
            variables={
                "PATH": f"{orders.path}:{_PATH}",
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": port or "443",
                "KUBERNETES_SERVICE_PORT_HTTPS": port or "443",
                "PYTHONUNBUFFERED": "1",
            },
            kept=[Path(each) for each in orders.kept],
            images={
                name: Image(tuple(each["entrypoint"]), each["folder"])
                for name, each in orders.images.items()
            },
            find=self._find,
            token=self._token,
            automounts=self._automounts,
            certificate=Path(orders.certificate).read_bytes(),
        )  # fmt: skip
        self._pods: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._numbers = count(1)

    async def run(self) -> None:
        """Run until cancelled."""
        await self._register()
        (self._place.folder / "logs").mkdir(exist_ok=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._services.run())
                for path, kind, changed in (
                    ("/api/v1/services", "Service", self._services.changed),
                    ("/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice",
                     self._services.changed),
                    ("/api/v1/pods", "Pod", self._changed),
                ):  # fmt: skip
                    group.create_task(self._follow(path, kind, changed))
        finally:
            tasks = [task for _, task in self._pods.values()]
            for task in (*self._ends.values(), *tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _register(self) -> None:
        size = {"cpu": str(os.cpu_count()), "memory": "64Gi", "pods": "110"}
        since = "2026-01-01T00:00:00Z"
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NAME, "labels": {"kubernetes.io/hostname": NAME}},
        }
        ready = {"type": "Ready", "status": "True", "reason": "Here", "lastTransitionTime": since}
        await self._client.post("/api/v1/nodes", json=node)
        status = {"capacity": size, "allocatable": size, "conditions": [ready]}
        patch = {"status": status}
        found = await self._client.patch(f"/api/v1/nodes/{NAME}/status", json=patch, headers=_MERGE)
        found.raise_for_status()

    async def _follow(self, path: str, kind: str, changed: Callable[[str, Any], None]) -> None:
        """List and watch, again and again."""
        known: dict[str, Any] = {}
        while True:
            try:
                listed = (await self._client.get(path)).raise_for_status().json()
                fresh = {
                    each["metadata"]["uid"]: {**each, "kind": kind} for each in listed["items"]
                }
                for uid in known.keys() - fresh.keys():
                    changed("DELETED", known[uid])
                for each in fresh.values():
                    changed("MODIFIED", each)
                known = fresh
                version = listed["metadata"]["resourceVersion"]
                query = {"watch": "true", "resourceVersion": version}
                async with self._client.stream("GET", path, params=query, timeout=None) as stream:
                    async for line in stream.aiter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        found = {**event["object"], "kind": kind}
                        known[found["metadata"]["uid"]] = found
                        if event["type"] == "DELETED":
                            known.pop(found["metadata"]["uid"])
                        changed(event["type"], found)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                _log.warning("%s: %r", path, error)
                await asyncio.sleep(0.5)

    def _changed(self, event: str, found: dict[str, Any]) -> None:
        """Bind, start, stop or forget a pod."""
        uid, node = found["metadata"]["uid"], found["spec"].get("nodeName")
        going = "deletionTimestamp" in found["metadata"]
        if event == "DELETED":
            if held := self._pods.pop(uid, None):
                held[1].cancel()
        elif not node and not going:
            asyncio.create_task(self._bind(found))  # noqa: RUF006
        elif uid in self._pods:
            held = self._pods[uid]
            held[0].resource["metadata"] = found["metadata"]
            if going and uid not in self._ends:
                self._ends[uid] = asyncio.create_task(self._end(*held))
        elif going:
            self._ends.setdefault(uid, asyncio.create_task(self._forget(found)))
        elif found.get("status", {}).get("phase", "Pending") == "Pending":
            path = _path(found)

            async def report(status: dict[str, Any]) -> None:
                await self._report(path, status)

            pod = Pod(found, next(self._numbers), self._place, report)
            self._pods[uid] = pod, asyncio.create_task(self._live(pod))

    async def _live(self, pod: Pod) -> None:
        try:
            await pod.run()
        except Exception:
            _log.exception("%s/%s", pod.namespace, pod.name)

    async def _bind(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": target,
        }
        await self._client.post(f"{_path(pod)}/binding", json=body)

    async def _end(self, pod: Pod, task: asyncio.Task[None]) -> None:
        await pod.stop(pod.resource["metadata"].get("deletionGracePeriodSeconds", 30))
        # What waited for a volume or a restart waits no longer.
        await asyncio.wait({task}, timeout=_LAST_SECONDS)
        task.cancel()
        await asyncio.wait({task})
        await self._forget(pod.resource)

    async def _forget(self, pod: dict[str, Any]) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._client.request("DELETE", _path(pod), json=body)

    async def _report(self, path: str, status: dict[str, Any]) -> None:
        while True:
            try:
                answer = await self._client.patch(
                    f"{path}/status", json={"status": status}, headers=_MERGE
                )
            except httpx.HTTPError as error:
                _log.warning("%s: %r", path, error)
                await asyncio.sleep(0.5)
                continue
            if answer.is_error and answer.status_code != 404:
                _log.warning("%s: %s", path, answer.text)
            return

    def _find(self, namespace: str, kind: str, name: str) -> dict[str, Any] | None:
        answer = self._blocking.get(f"/api/v1/namespaces/{namespace}/{_KINDS[kind]}/{name}")
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def _token(self, namespace: str, account: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        found: str = (
            self._blocking.post(path, json=request).raise_for_status().json()["status"]["token"]
        )
        return found

    def _automounts(self, namespace: str, account: str) -> bool:
        answer = self._blocking.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
        return bool(answer.raise_for_status().json().get("automountServiceAccountToken", True))


def _path(pod: dict[str, Any]) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


async def _run(orders: Orders) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await Node(orders).run()


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    orders = Orders(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        asyncio.run(_run(orders))
    finally:
        shutil.rmtree(orders.memory, ignore_errors=True)


if __name__ == "__main__":
    main()
