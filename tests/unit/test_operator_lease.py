"""One holder of the lease at a time, by anybody's clock."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from embedfleet_operator.cluster.api import Answer, Api, ApiError, Request
from embedfleet_operator.cluster.lease import Lease, LeaseSpec, NotLeader

SPEC = LeaseSpec("system", "operator", "a", duration=15, renew=10)


@dataclass
class Server:
    """An API server with a lease or without, and a clock.

    Attributes:
        slowness: Seconds that each request takes on its way there.
    """

    now: float = 1000.0
    slowness: float = 0.0
    lease: dict[str, Any] | None = None
    version: int = 0
    unreachable: bool = False
    puts: list[str] = field(default_factory=list)

    async def send(self, request: Request) -> Answer:
        if self.unreachable:
            raise ConnectionError("no route")
        self.now += self.slowness
        if request.method == "GET":
            found = copy.deepcopy(self.lease)
            return _answer(404 if found is None else 200, found or {"reason": "NotFound"})
        body = json.loads(json.dumps(request.body))
        if request.method == "POST" and self.lease is not None:
            return _answer(409, {"reason": "AlreadyExists"})
        if request.method == "PUT":
            told = body["metadata"].get("resourceVersion")
            if self.lease is None or told != self.lease["metadata"]["resourceVersion"]:
                return _answer(409, {"reason": "Conflict"})
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        self.puts.append(body["spec"]["holderIdentity"])
        return _answer(201, body)

    def clock(self) -> float:
        return self.now

    def operator(self, identity: str) -> Lease:
        spec = LeaseSpec("system", "operator", identity, duration=15, renew=10)
        return Lease(Api(self.send), spec, self.clock)


def _answer(status: int, body: Any) -> Answer:
    return Answer(status, json.dumps(body).encode())


async def test_a_free_lease_is_taken_and_kept() -> None:
    server = Server()
    a = server.operator("a")
    with pytest.raises(NotLeader, match="system/operator"):
        a.check()
    assert await a.attempt()
    a.check()
    server.now += 9
    assert not await a.attempt()
    server.now += 9
    assert a.leads
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "a"
    assert server.lease["spec"]["leaseTransitions"] == 0


async def test_a_leader_that_could_not_renew_stops_before_another_may_start() -> None:
    server = Server()
    a, b = server.operator("a"), server.operator("b")
    await a.attempt()
    stopped: float | None = None
    for _ in range(400):
        server.now += 0.1
        if stopped is None and not a.leads:
            stopped = server.now
        if await b.attempt():
            break
    assert stopped is not None
    assert stopped == pytest.approx(1010, abs=0.11)
    # Longer apart than a write may be on its way.
    assert server.now - stopped >= 4.9
    assert b.leads


async def test_what_is_slow_makes_nobody_lead_twice() -> None:
    server = Server(slowness=3.0)
    a, b = server.operator("a"), server.operator("b")
    await a.attempt()
    seen = 0
    while not await b.attempt():
        seen += 1
        # Renewed right after the other has asked, which then sees it late.
        if seen == 1:
            await a.attempt()
            renewed = server.now
    assert server.now - renewed > 15
    assert not a.leads


@pytest.mark.parametrize(
    ("spec", "after_seconds"),
    [
        (None, 0),
        ({}, 0),
        ({"holderIdentity": ""}, 0),
        ({"holderIdentity": "a"}, 0),
        # Not by what it says of the time: other clocks may be wrong by years.
        ({"holderIdentity": "b", "renewTime": "1990-01-01T00:00:00.000000Z"}, 15),
        ({"holderIdentity": "b", "renewTime": "2990-01-01T00:00:00.000000Z"}, 15),
        ({"holderIdentity": "b", "leaseDurationSeconds": 60}, 60),
        ({"holderIdentity": "b", "leaseDurationSeconds": 1}, 15),
    ],
    ids=["bare", "empty", "released", "own", "past", "future", "longer", "shorter"],
)
async def test_when_a_lease_may_be_taken(spec: Any, after_seconds: float) -> None:
    metadata = {"name": "operator", "namespace": "system", "resourceVersion": "0"}
    server = Server(lease={"metadata": metadata, "spec": spec})
    a = server.operator("a")
    began = server.now
    while not await a.attempt():
        server.now += 1
        assert server.now - began <= after_seconds + 2
    assert server.now - began == pytest.approx(after_seconds + (after_seconds > 0), abs=0.5)


async def test_of_two_that_take_it_at_once_one_gets_it() -> None:
    server = Server()
    a, b = server.operator("a"), server.operator("b")
    first = await server.send(Request("GET", "/"))
    assert first.status == 404
    await a.attempt()
    metadata = {"name": "operator", "namespace": "system"}
    answer = await server.send(Request("POST", "/", body={"metadata": metadata, "spec": {}}))
    assert answer.status == 409
    assert not await b.attempt()
    assert (a.leads, b.leads) == (True, False)


async def test_a_renewal_that_comes_too_late_counts_as_a_new_start() -> None:
    server = Server()
    a = server.operator("a")
    assert await a.attempt()
    server.unreachable = True
    server.now += 9
    with pytest.raises(ConnectionError):
        await a.attempt()
    server.unreachable = False
    server.now += 3
    assert not a.leads
    # What was to be done meanwhile was not.
    assert await a.attempt()


async def test_who_lost_it_knows() -> None:
    server = Server()
    a, b = server.operator("a"), server.operator("b")
    await a.attempt()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = ""
    assert await b.attempt()
    assert not await a.attempt()
    assert not a.leads


async def test_what_is_released_is_free_at_once() -> None:
    server = Server()
    a, b = server.operator("a"), server.operator("b")
    await a.attempt()
    assert not await b.attempt()
    await b.release()
    assert server.puts == ["a"]
    await a.release()
    assert not a.leads
    assert await b.attempt()


async def test_a_refusal_opens_no_gate() -> None:
    async def send(request: Request) -> Answer:
        return _answer(403, {"reason": "Forbidden", "message": "no"})

    lease = Lease(Api(send), SPEC)
    with pytest.raises(ApiError, match="Forbidden"):
        await lease.attempt()
    assert not lease.leads
