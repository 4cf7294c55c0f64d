"""What a deleted fleet takes away from a Ray cluster that outlives it, and what it leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from memory_serve import Guest, Serve, guests
from operator_facts import TARGET, known, raw

from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.acting.fleets import Fleets
from embedfleet_operator.cluster.api import Answer, Api, Request
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.deciding.decide import decide
from embedfleet_operator.observing.seen import ServeState
from embedfleet_operator.rendering import Manifest

SPEC = {"existingCluster": {"dashboard": "http://ray.x:8265", "serveHost": "ray.x"}}
MODEL = {"model": {"source": "embedded/embedder"}}
MINE = raw("Fleet", "f", SPEC, age=3)
BEFORE = raw("Fleet", "f", SPEC, age=40, namespace="team-a")
"""An older fleet on the same cluster: it refuses the other."""


def put(fleet: Manifest | None, told: str | None = None, **more: Any) -> Serve:
    """A Ray cluster after a fleet put its model; `told` is what the router then says it is."""
    serve = Serve()
    if fleet is not None:
        docs = raw("Embedder", "docs", MODEL, namespace=fleet["metadata"]["namespace"])
        config = decide(known(fleet, [docs], serve=ServeState(""))).config
        assert config is not None
        if told is not None:
            config["applications"][-1]["deployments"][0]["user_config"]["fleet"] = told
        serve.put(config)
    serve.applications |= more
    return serve


class Silent(Guest):
    """A Ray cluster whose dashboard does not answer."""

    async def observe(self) -> ServeState:
        return ServeState("Ray's dashboard does not answer.")


class Server:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.finalizers: list[Any] = []

    async def send(self, request: Request) -> Answer:
        if request.method == "POST":
            self.notes.append(request.body["note"])
        else:
            self.finalizers.append(request.body[-1]["value"])
        return Answer(200, json.dumps({}).encode())


async def deleted(cluster: Guest, others: list[Manifest], seconds: float = 1) -> Server:
    """Reconcile a fleet that was deleted so long ago."""
    began = datetime.now(UTC) - timedelta(seconds=seconds)
    metadata = {
        **MINE["metadata"], "finalizers": ["embedfleet.io/serve"],
        "deletionTimestamp": began.isoformat(),
    }  # fmt: skip
    server, store = Server(), Store()
    for each in ({**MINE, "metadata": metadata}, *others):
        store.put(each)
    api = Api(server.send)
    fleets = Fleets(api, store, Environment(TARGET), Actor(api, store, "me"), guests(cluster))
    await fleets.reconcile("search", "f")
    return server


CHAT = {"status": "RUNNING", "deployments": [{"name": "chat"}]}


@pytest.mark.parametrize(
    ("serve", "others", "note"),
    [
        (put(MINE), [], None),
        # What bears its name is its own, even where it is refused by now.
        (put(MINE), [BEFORE], None),
        (put(MINE, told="f"), [], None),
        (put(None), [BEFORE], None),
        (put(BEFORE), [BEFORE], "applications of Fleet team-a/f: emb-docs, router."),
        (put(BEFORE), [], "applications of Fleet team-a/f: emb-docs, router."),
        (put(BEFORE, told="f"), [BEFORE], "applications that this fleet has not put there"),
        (put(MINE, chat=CHAT), [], "applications of others: chat."),
    ],
    ids=[
        "own", "own-refused", "unmarked", "empty", "refused", "anothers", "unmarked-refused",
        "strangers",
    ],
)  # fmt: skip
async def test_only_its_own_is_taken_away(
    serve: Serve, others: list[Manifest], note: str | None
) -> None:
    before = list(serve.applications)
    server = await deleted(Guest(serve), others)
    assert server.finalizers == [[]]
    if note is None:
        assert (list(serve.applications), server.notes) == ([], [])
    else:
        assert list(serve.applications) == before
        (said,) = server.notes
        assert said.startswith("Nothing is taken away from the Ray cluster: it runs ")
        assert note in said


@pytest.mark.parametrize(("seconds", "finalizers"), [(240, []), (360, [[]])])
async def test_a_cluster_that_is_silent_is_waited_for_a_while(
    seconds: float, finalizers: list[Any]
) -> None:
    serve = put(MINE)
    server = await deleted(Silent(serve), [], seconds)
    assert server.finalizers == finalizers
    assert len(server.notes) == len(finalizers)
    assert "emb-docs" in serve.applications
