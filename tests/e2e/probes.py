"""Probes of containers: commands inside them; HTTP, gRPC and TCP from outside, like a kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import httpx
from e2e.processes import Running

__all__ = ["passes", "verdicts"]

Probe = Mapping[str, Any]
_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with status SERVING."""


async def verdicts(
    probe: Probe, container: Mapping[str, Any], running: Running
) -> AsyncIterator[bool]:
    """Yield whether a container is well whenever that has been made sure of, for ever."""
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    streak, last = 0, False
    while True:
        passed = await passes(probe, container, running)
        streak = streak + 1 if passed == last else 1
        last = passed
        if streak >= probe.get(*(("successThreshold", 1) if passed else ("failureThreshold", 3))):
            yield passed
        await asyncio.sleep(probe.get("periodSeconds", 10))


async def passes(probe: Probe, container: Mapping[str, Any], running: Running) -> bool:
    """Ask once."""
    seconds, address = probe.get("timeoutSeconds", 1), running.launch.namespace.address
    if "exec" in probe:
        return await running.run(probe["exec"]["command"], seconds) == 0
    try:
        if "httpGet" in probe:
            port = _port(probe["httpGet"]["port"], container)
            return await _http(probe["httpGet"], f"{address}:{port}", seconds)
        if "grpc" in probe:
            return await _grpc(probe["grpc"], address, seconds)
        port = _port(probe["tcpSocket"]["port"], container)
        opened = asyncio.open_connection(address, port)
        (await asyncio.wait_for(opened, seconds))[1].close()
    except (OSError, TimeoutError, httpx.HTTPError, grpc.RpcError):
        return False
    return True


async def _http(get: Mapping[str, Any], authority: str, seconds: float) -> bool:
    scheme = get.get("scheme", "HTTP").lower()
    headers = {each["name"]: each["value"] for each in get.get("httpHeaders", ())}
    # A kubelet does not verify certificates either.
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=seconds) as client:
        url = f"{scheme}://{authority}{get.get('path', '/')}"
        return 200 <= (await client.get(url, headers=headers)).status_code < 400


async def _grpc(get: Mapping[str, Any], address: str, seconds: float) -> bool:
    name = get.get("service", "").encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    async with grpc.aio.insecure_channel(f"{address}:{get['port']}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return await check(request, timeout=seconds) == _SERVING


def _port(port: int | str, container: Mapping[str, Any]) -> int:
    if isinstance(port, int):
        return port
    return next(each["containerPort"] for each in container["ports"] if each["name"] == port)
