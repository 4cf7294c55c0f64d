"""What the operator writes, against an API server that is a function of requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from operator_facts import raw

from embedfleet.rendering.plan import Change, Impact, Plan
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.taken import NameTaken
from embedfleet_operator.cluster.api import Answer, Api, ApiError, Request
from embedfleet_operator.cluster.lease import NotLeader
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.rendering import Manifest
from embedfleet_operator.rendering.manifests import MANAGED_BY

FLEET = raw("Fleet", "search", {"pools": [{"name": "cpu"}]})


def made(request: Request) -> Answer:
    return Answer(201, json.dumps(request.body).encode())


@dataclass
class Server:
    """Keeps what is posted, or fails as it is told to."""

    answer: Callable[[Request], Answer] = made
    posted: list[Any] = field(default_factory=list)

    async def send(self, request: Request) -> Answer:
        self.posted.append(request.body)
        return self.answer(request)

    def actor(self, identity: str = "me", may_write: Callable[[], None] = lambda: None) -> Actor:
        return Actor(Api(self.send, may_write), Store(), identity)


def refuses(status: int) -> Callable[[Request], Answer]:
    body = json.dumps({"reason": "Injected", "message": "no"}).encode()
    return lambda request: Answer(status, body)


def breaks_off(request: Request) -> Answer:
    raise ConnectionError("injected")


def steps_down() -> None:
    raise NotLeader


# Kubernetes 1.35 pkg/apis/core/validation/events.go: NoteLengthLimit = 1024, compared with Go's
# len, which counts bytes.
@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("a" * 1024, "a" * 1024),
        ("a" * 1025, "a" * 1020 + " ..."),
        ("检" * 341, "检" * 341),
        # 340 of three bytes are 1020.
        ("检" * 342, "检" * 340 + " ..."),
        ("a" + "检" * 749, "a" + "检" * 339 + " ..."),
        ("🙂" * 300, "🙂" * 255 + " ..."),
        ("", ""),
    ],
    ids=["fits", "long", "wide-fits", "wide", "between", "widest", "empty"],
)
async def test_a_note_is_cut_where_kubernetes_limits_it(note: str, said: str) -> None:
    server = Server()
    await server.actor().say(FLEET, "Start", note)
    (event,) = server.posted
    assert event["note"] == said
    assert len(event["note"].encode()) <= 1024


async def test_an_identity_is_cut_too() -> None:
    server = Server()
    await server.actor("检" * 128).say(FLEET, "Start", "")
    assert len(server.posted[0]["reportingInstance"].encode()) <= 128


@pytest.mark.parametrize(
    ("answer", "is_logged"),
    [
        (refuses(409), False),
        (refuses(403), False),
        (refuses(422), True),
        (refuses(500), True),
        (refuses(503), True),
        (breaks_off, True),
    ],
    ids=["said", "going", "invalid", "error", "busy", "lost"],
)
async def test_an_event_that_cannot_be_written_stops_nothing(
    answer: Callable[[Request], Answer], is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    change = Change("Embedder/docs", "spec.x", 1, 2, Impact.RECONFIGURE, "Because.")
    server = Server(answer)
    await server.actor().announce(FLEET, Plan((change,)))
    assert len(server.posted) == 1
    assert ("event Reconfigure of search" in caplog.text) is is_logged


async def test_who_leads_no_more_is_stopped_by_an_event() -> None:
    server = Server()
    with pytest.raises(NotLeader):
        await server.actor(may_write=steps_down).say(FLEET, "Start", "")
    assert server.posted == []


SERVICE: Manifest = {
    "apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "search", "namespace": "search", "labels": dict((MANAGED_BY,))},
    "spec": {"ports": [{"port": 9000}]},
}  # fmt: skip
MINE = {"ownerReferences": [{"uid": FLEET["metadata"]["uid"], "kind": "Fleet", "name": "search"}]}
OTHERS = {"ownerReferences": [{"uid": "another", "kind": "Deployment", "name": "search"}]}


@dataclass
class Objects:
    """An API server that holds one object or none; whoever was there first keeps the fields."""

    held: Manifest | None = None
    comes: Manifest | None = None
    log: list[tuple[str, bool]] = field(default_factory=list)

    async def send(self, request: Request) -> Answer:
        is_forced = "force" in request.query
        self.log.append((request.method, is_forced))
        if request.method == "GET":
            found, self.held = self.held, self.held or self.comes
            return Answer(200, json.dumps(found).encode()) if found else refuses(404)(request)
        if self.held is not None and not is_forced:
            return refuses(409)(request)
        metadata = {"uid": "1", "resourceVersion": "8", **request.body["metadata"]}
        self.held = {**request.body, "metadata": metadata}
        return Answer(200, json.dumps(self.held).encode())


def held(**metadata: Any) -> Manifest:
    whole = {"name": "search", "namespace": "search", "uid": "1", "resourceVersion": "7"}
    return {**SERVICE, "metadata": {**whole, **metadata}, "spec": {"ports": [{"port": 80}]}}


@pytest.mark.parametrize(
    ("objects", "log"),
    [
        (Objects(), [("GET", False), ("PATCH", False)]),
        # Just made, and not in the copy yet; or somebody took its label away.
        (Objects(held(**MINE)), [("GET", False), ("PATCH", True)]),
        (Objects(held(labels=dict((MANAGED_BY,)))), [("GET", False), ("PATCH", True)]),
    ],
    ids=["none", "mine", "labelled"],
)
async def test_what_is_missing_is_looked_for_before_it_is_made(
    objects: Objects, log: list[tuple[str, bool]]
) -> None:
    await Actor(Api(objects.send), Store(), "me").apply(FLEET, [SERVICE])
    assert objects.log == log
    assert objects.held is not None
    assert objects.held["spec"] == SERVICE["spec"]


@pytest.mark.parametrize(
    "metadata", [{}, OTHERS, {"labels": {"app": "legacy"}}], ids=["plain", "owned", "labelled"]
)
async def test_what_is_anothers_is_left_alone(metadata: dict[str, Any]) -> None:
    before = held(**metadata)
    objects = Objects(before)
    change = Change("Embedder/docs", "spec.x", 1, 2, Impact.RECONFIGURE, "Because.")
    with pytest.raises(NameTaken) as raised:
        await Actor(Api(objects.send), Store(), "me").apply(FLEET, [SERVICE], Plan((change,)))
    # Not even announced.
    assert objects.log == [("GET", False)]
    assert objects.held == before
    refusal = raised.value.refusal
    assert str(refusal.reason) == "NameTaken"
    assert refusal.message.startswith("Service/search: there already in this namespace")
    assert "Give Fleet/search another name" in refusal.message
    assert "label it app.kubernetes.io/managed-by=embedfleet-operator." in refusal.message


async def test_what_others_make_meanwhile_is_no_prey_either() -> None:
    objects = Objects(comes=held())
    actor = Actor(Api(objects.send), Store(), "me")
    with pytest.raises(ApiError) as raised:
        await actor.apply(FLEET, [SERVICE])
    assert raised.value.is_transient
    with pytest.raises(NameTaken):
        await actor.apply(FLEET, [SERVICE])
    assert objects.held == held()
