"""One cache and an API server of values: what is written for it, refused, and said of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from operator_facts import TARGET, raw

from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.caches import Caches
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.cluster.api import Answer, Api, ApiError, Request
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.rendering import Manifest

HUB = {"source": {"hub": {"name": "Qwen/Qwen3-Embedding-0.6B"}}}
SHRINKS = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"


@dataclass
class Server:
    """Stores what is applied as it is, but for the kinds that it refuses."""

    refuses: dict[str, str] = field(default_factory=dict)
    written: list[Manifest] = field(default_factory=list)

    async def send(self, request: Request) -> Answer:
        body = request.body
        if message := self.refuses.get(body["kind"]):
            told = {"reason": "Invalid", "message": message}
            return Answer(422, json.dumps(told).encode())
        self.written.append(body)
        metadata = {"uid": body["kind"], "resourceVersion": "9", **body["metadata"]}
        return Answer(200, json.dumps({**body, "metadata": metadata}).encode())

    def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Give status, reason and message by type, as last reported."""
        status = next(each["status"] for each in reversed(self.written) if "status" in each)
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}

    def notes(self) -> list[tuple[str, str]]:
        return [(each["reason"], each["note"]) for each in self.written if each["kind"] == "Event"]


def reconcile(server: Server, cache: Manifest, others: Iterable[Manifest] = ()) -> Any:
    store = Store()
    for each in (cache, *others):
        store.put(each)
    caches = Caches(store, Environment(TARGET), Actor(Api(server.send), store, "me"))
    return asyncio.run(caches.reconcile("search", cache["metadata"]["name"]))


def test_a_claim_that_is_refused_is_what_the_status_says() -> None:
    server = Server({"PersistentVolumeClaim": SHRINKS})
    with pytest.raises(ApiError):
        reconcile(server, raw("ModelCache", "weights", HUB))
    found = server.conditions()
    for kind, status in (("Cached", "False"), ("Progressing", "False"), ("Degraded", "True")):
        assert found[kind][:2] == (status, "ApplyFailed")
        assert SHRINKS in found[kind][2]
    assert [(reason, SHRINKS in note) for reason, note in server.notes()] == [("ApplyFailed", True)]


def test_a_cache_that_can_be_made_says_nothing_of_failures() -> None:
    server = Server()
    assert reconcile(server, raw("ModelCache", "weights", HUB)) is not None
    assert {"PersistentVolumeClaim", "Job"} <= {each["kind"] for each in server.written}
    assert server.conditions()["Degraded"][:2] == ("False", "Healthy")
