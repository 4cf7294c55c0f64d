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
from embedfleet_operator.cluster.api import Answer, Api, Request
from embedfleet_operator.cluster.lease import NotLeader
from embedfleet_operator.cluster.watching import Store

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
