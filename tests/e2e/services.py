"""Services of a cluster for pods: their names, and their addresses carried to ready pods.

Which pods are ready is read from the EndpointSlices of Kubernetes' own controller. A connection to
a Service's address is copied to one of them, as kube-proxy did before there were iptables.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from e2e.names import NameServer
from e2e.network import Network

__all__ = ["Services"]

DNS_PORT = 53
_SUFFIX = ".svc.cluster.local"
_API = "kubernetes.default"
_CHUNK = 1 << 16

Resource = dict[str, Any]


class Services:
    """What is known of Services, kept up to date by `changed`."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._services: dict[str, Resource] = {}
        self._slices: dict[tuple[str, str], Resource] = {}
        self._carriers: dict[tuple[str, int], asyncio.Task[Any]] = {}

    async def run(self) -> None:
        """Answer questions until cancelled."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: NameServer(self.lookup), (self._network.gateway, DNS_PORT)
        )
        try:
            await asyncio.Event().wait()
        finally:
            transport.close()
            for carrier in self._carriers.values():
                carrier.cancel()

    def changed(self, event: str, found: Resource) -> None:
        """Take notice of a Service or an EndpointSlice."""
        metadata = found["metadata"]
        if found["kind"] == "EndpointSlice":
            service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
            key = (f"{service}.{metadata['namespace']}", metadata["name"])
            if event == "DELETED":
                self._slices.pop(key, None)
            else:
                self._slices[key] = found
            return
        name = f"{metadata['name']}.{metadata['namespace']}"
        if event == "DELETED":
            self._services.pop(name, None)
        else:
            self._services[name] = found
        self._carry()

    def lookup(self, name: str) -> Sequence[str] | None:
        """Give the addresses of a name; None where there is no such Service."""
        short = name.removesuffix(_SUFFIX)
        if short == name or short not in self._services:
            return None
        if short == _API:
            return [self._network.gateway]
        address = _address(self._services[short])
        return [address] if address else [host for host, _ in self.endpoints(short, "")]

    def endpoints(self, service: str, port: str) -> list[tuple[str, int]]:
        """List ready pods behind a Service, with the number of a port of theirs; 0 for no name."""
        return [
            (address, next((p["port"] for p in each.get("ports") or () if p["name"] == port), 0))
            for (owner, _), each in sorted(self._slices.items())
            if owner == service and each["addressType"] == "IPv4"
            for endpoint in each.get("endpoints") or ()
            if endpoint["conditions"].get("ready") is not False
            for address in endpoint["addresses"]
        ]

    def _carry(self) -> None:
        wanted = {
            (address, port["port"]): (name, port.get("name", ""))
            for name, each in self._services.items()
            if name != _API and (address := _address(each))
            for port in each["spec"].get("ports") or ()
            if port.get("protocol", "TCP") == "TCP"
        }
        for key in self._carriers.keys() - wanted.keys():
            self._carriers.pop(key).cancel()
        for key in wanted.keys() - self._carriers.keys():
            self._carriers[key] = asyncio.create_task(self._listen(*key, *wanted[key]))

    async def _listen(self, address: str, port: int, service: str, name: str) -> None:
        self._network.serve(address)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ready = self.endpoints(service, name)
            random.shuffle(ready)
            for endpoint in ready:
                with suppress(OSError):
                    far = await asyncio.open_connection(*endpoint)
                    await asyncio.gather(_copy(reader, far[1]), _copy(far[0], writer))
                    return
            writer.transport.abort()

        server = await asyncio.start_server(carry, address, port)
        async with server:
            await server.serve_forever()


def _address(service: Resource) -> str:
    address = service["spec"].get("clusterIP") or ""
    return "" if address == "None" else address


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()
