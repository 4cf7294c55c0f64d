"""A dashboard that is down or lies holds one fleet up, and only meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web
from control_plane import ControlPlane
from memory_serve import Serve, guests
from operator_course import FIRST, REASON, Course, change, rests, rollout
from operator_process import condition
from operator_world import PATIENCE_SECONDS, World

from embedfleet.local.ports import free_ports
from embedfleet_operator.acting.serve_clusters import RestCluster

pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(900),
]


@dataclass
class Dashboard:
    """Ray's dashboard before a Serve, or something that only looks like it.

    Attributes:
        lie: What it answers instead of the truth; None is the truth.
    """

    serve: Serve
    lie: bytes | None = None

    async def answer(self, request: web.Request) -> web.Response:
        if self.lie == b"":
            # Gone in the middle of the answer.
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.lie is not None:
            return web.Response(body=self.lie)
        if request.method == "GET":
            return web.json_response(self.serve.details())
        self.serve.put(await request.json() if request.method == "PUT" else {"applications": []})
        return web.Response()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/api/serve/applications/", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


APPLICATION = b'{"applications": {"emb-docs": %s}}'
LIES: Mapping[str, bytes] = {
    "down": b"",
    "page": b"<html>502 Bad Gateway</html>",
    "empty": b"{}",
    "null": b'{"applications": null}',
    "list": b'{"applications": [{"name": "router"}]}',
    "number": APPLICATION % b"7",
    "types": APPLICATION % b'{"status": 7, "deployments": {"a": []}}',
}


async def reason(world: World) -> str:
    """Give the reason why the fleet is ready or not."""
    return condition(await world.get("Fleet", "guest"), "Ready")[1]


async def test_a_dashboard_that_is_down_or_lies_changes_nothing(
    plane: ControlPlane, course: Course
) -> None:
    async def run(name: str, lie: bytes) -> None:
        dashboard = Dashboard(Serve(), lie)
        async with (
            dashboard.serving() as url,
            rollout(plane, f"dashboard-{name}", connect=guests(RestCluster(url))) as (world, wire),
        ):
            await world.create(*FIRST)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await reason(world) != "Unreachable":
                    await asyncio.sleep(0.2)
            await wire.quiet(2)
            assert dashboard.serve.puts == 0
            assert await reason(world) == "Unreachable"
            dashboard.lie = None
            await world.reaches(course.first, wire)
            dashboard.lie = lie
            await change(world)
            await wire.quiet(2)
            dashboard.lie = None
            await world.reaches(course.second, wire)
            await rests(world, wire, course)

    async with asyncio.TaskGroup() as group:
        for name, lie in LIES.items():
            group.create_task(run(name, lie))
