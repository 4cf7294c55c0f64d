"""One cache and an API server of values: what is written for it, refused, and said of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from operator_facts import TARGET, raw

from embedfleet.resources import Embedder, Fleet
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.caches import Caches
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.cluster.api import Answer, Api, ApiError, Request
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.observing.cache_users import FINALIZER
from embedfleet_operator.observing.judging import judged
from embedfleet_operator.observing.remembering import remembered
from embedfleet_operator.rendering import Manifest

HUB = {"source": {"hub": {"name": "Qwen/Qwen3-Embedding-0.6B"}}}
SHRINKS = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"


@dataclass
class Server:
    """Stores what is applied as it is, but for the kinds that it refuses.

    Attributes:
        others: Objects that are there and carry no label, by address.
    """

    refuses: dict[str, str] = field(default_factory=dict)
    others: dict[str, Manifest] = field(default_factory=dict)
    written: list[Manifest] = field(default_factory=list)
    finalizers: list[str] | None = None

    async def send(self, request: Request) -> Answer:
        body = request.body
        if request.method == "GET":
            there = self.others.get(request.path)
            return Answer(200 if there else 404, json.dumps(there or {}).encode())
        if request.content_type == "application/json-patch+json":
            (self.finalizers,) = (each["value"] for each in body if each["op"] == "add")
            return Answer(200, json.dumps({"kind": "ModelCache", "metadata": {}}).encode())
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


def test_a_claim_of_others_is_what_the_status_says() -> None:
    path = "/api/v1/namespaces/search/persistentvolumeclaims/weights-cache"
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "weights-cache", "uid": "1"}}
    server = Server(others={path: claim})
    assert reconcile(server, raw("ModelCache", "weights", HUB)) == 60
    found = server.conditions()
    assert found["Accepted"][:2] == ("False", "NameTaken")
    assert found["Accepted"][2].startswith("PersistentVolumeClaim/weights-cache: there already")
    assert found["Cached"][:2] == ("False", "Held")
    assert {each["kind"] for each in server.written} == {"ModelCache"}


def test_a_cache_that_can_be_made_says_nothing_of_failures() -> None:
    server = Server()
    assert reconcile(server, raw("ModelCache", "weights", HUB)) is not None
    assert {"PersistentVolumeClaim", "Job"} <= {each["kind"] for each in server.written}
    assert server.conditions()["Degraded"][:2] == ("False", "Healthy")


DOCS = raw("Embedder", "docs", {"model": {"size": "0.6B", "cache": "weights"}})
MOVED = raw("Embedder", "docs", {"model": {"size": "0.6B", "cache": "other"}})
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def deleted(manifest: Manifest, *finalizers: str) -> Manifest:
    metadata = {**manifest["metadata"], **GOING, "finalizers": list(finalizers)}
    return {**manifest, "metadata": metadata}


def served(model: Manifest, fleet: str = "f") -> Manifest:
    """What a fleet remembers of a model that serves well."""
    found = judged(Embedder, model).resource
    assert found is not None
    resource = judged(Fleet, raw("Fleet", fleet, {"pools": [{"name": "cpu"}]})).resource
    assert resource is not None
    memory = remembered(resource, [found])
    return {**memory, "metadata": {**memory["metadata"], "uid": "1", "resourceVersion": "7"}}


WEIGHTS = raw("ModelCache", "weights", HUB)
HELD = deleted(WEIGHTS, FINALIZER)


@pytest.mark.parametrize(
    ("cache", "others", "finalizers"),
    [
        (WEIGHTS, [DOCS], [FINALIZER]),
        (WEIGHTS, [MOVED, served(DOCS)], [FINALIZER]),
        (WEIGHTS, [MOVED, served(MOVED)], None),
        (WEIGHTS, [deleted(DOCS, "another.example/finalizer")], None),
        (WEIGHTS, [raw("Embedder", "docs", {"model": "weights"})], None),
        # The API server takes no new finalizer of what is going.
        (deleted(WEIGHTS, "foregroundDeletion"), [DOCS], None),
        (HELD, [DOCS], None),
        (HELD, [MOVED, served(DOCS)], None),
        (HELD, [MOVED, served(MOVED)], []),
        (HELD, [], []),
    ],
    ids=[
        "named", "still-served", "moved-away", "user-is-going", "unreadable", "too-late",
        "going-named", "going-still-served", "going-moved-away", "going-alone",
    ],
)  # fmt: skip
def test_a_cache_is_held_while_a_model_serves_from_it(
    cache: Manifest, others: list[Manifest], finalizers: list[str] | None
) -> None:
    server = Server()
    reconcile(server, cache, others)
    assert server.finalizers == finalizers


def test_who_holds_a_cache_is_in_its_status_and_nothing_is_made_anew() -> None:
    server = Server()
    models = [raw("Embedder", f"m{n:02}", DOCS["spec"]) for n in range(18)]
    assert reconcile(server, HELD, [DOCS, *models]) == 5.0, "who deletes it waits"
    status, reason, message = server.conditions()["Progressing"]
    assert (status, reason) == ("True", "InUse")
    assert message.startswith("Used by Embedder/docs, Embedder/m00, ")
    assert "Embedder/m14 and 3 more. " in message
    assert [each["kind"] for each in server.written] == ["ModelCache"]


def test_a_cache_that_is_gone_for_good_is_left_alone() -> None:
    server = Server()
    assert reconcile(server, HELD, []) is None
    assert server.written == []
