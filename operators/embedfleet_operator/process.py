"""The operator: what is watched becomes keys, a leader's workers reconcile them, probes tell how.

Every process watches, so that a new leader starts from a fresh copy; only the leader writes. What
fails is tried again, later each time, and says so in statuses, metrics and the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.caches import Caches
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.acting.fleets import Connect, Fleets, connect
from embedfleet_operator.cluster.api import Answer, Api, ApiError, Request, Send
from embedfleet_operator.cluster.kinds import WATCHED, kind_of
from embedfleet_operator.cluster.lease import Lease, LeaseSpec, NotLeader
from embedfleet_operator.cluster.watching import Follower, Store
from embedfleet_operator.cluster.work import WorkQueue
from embedfleet_operator.health import Metrics
from embedfleet_operator.observing.cache_users import cache_of
from embedfleet_operator.observing.judging import fleet_names, fleet_of
from embedfleet_operator.rendering import KubeRayFeatures, Manifest, Target
from embedfleet_operator.rendering.manifests import CACHE_LABEL, FLEET_LABEL
from embedfleet_operator.settings import Settings

__all__ = ["Key", "Operator"]

_log: Final = logging.getLogger("embedfleet.operator")

_DEFINITION: Final = "rayservices.ray.io"
_DEFINITION_SECONDS: Final = 30.0
_LISTING_SECONDS: Final = 0.1
_ORIGIN_LABEL: Final = "ray.io/originated-from-cr-name"


class Key(NamedTuple):
    """What is reconciled: a Fleet or ModelCache, or what in a namespace belongs to no fleet."""

    kind: str
    namespace: str
    name: str


_ORPHANS: Final = "Orphans"


@dataclass(frozen=True, slots=True)
class Connections:
    """How an operator reaches the world.

    Attributes:
        send: Carries requests to the API server.
        connect: Opens Ray clusters.
    """

    send: Send
    connect: Connect = connect


class Operator:
    """One operator process; `run` never returns by itself."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self.metrics = Metrics()
        self.store = Store()
        self._settings = settings
        send = self._counted(connections.send)
        self._free = Api(send)
        lease = LeaseSpec(settings.lease_namespace, settings.lease_name, settings.identity)
        self.lease = Lease(self._free, lease)
        api = Api(send, self.lease.check)
        self._environment = Environment(_target(settings))
        actor = Actor(api, self.store, settings.identity)
        self._fleets = Fleets(api, self.store, self._environment, actor, connections.connect)
        self._caches = Caches(self.store, self._environment, actor)
        self.queue: WorkQueue[Key] = WorkQueue(self._reconcile, self._failed)
        self._looked = False
        self.metrics.queue_length.set_function(lambda: len(self.queue))
        self.metrics.leader.set_function(lambda: self.lease.leads)

    async def run(self) -> None:
        """Watch, take the lease whenever it is free, and reconcile while it is held."""
        namespaces = self._settings.namespaces or ("",)
        async with asyncio.TaskGroup() as group:
            for kind in WATCHED:
                for namespace in namespaces:
                    follower = Follower(
                        self._free, kind, namespace, self.store, self._changed,
                        self._settings.resync_seconds,
                    )  # fmt: skip
                    group.create_task(follower.run())
            group.create_task(self._look_at_definitions())
            group.create_task(self.lease.run(self._add_all))
            for _ in range(self._settings.num_workers):
                group.create_task(self.queue.run())

    async def release(self) -> None:
        """Let another process lead at once."""
        await self.lease.release()

    def not_ready(self) -> str:
        """Say what is not known yet; empty if all is."""
        lacking = [
            kind.plural
            for kind in WATCHED
            for namespace in self._settings.namespaces or ("",)
            if not self.store.synced(kind, namespace)
        ]
        return f"not listed yet: {', '.join(lacking)}" if lacking else ""

    def _changed(self, found: Manifest) -> None:
        for key in self._keys(found):
            self.queue.add(key)

    def _keys(self, found: Manifest) -> Iterator[Key]:
        """Yield what has to be looked at again."""
        kind, metadata = found["kind"], found["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        labels = metadata.get("labels") or {}
        if kind == "Fleet":
            # Whom a model without spec.fleet belongs to rests on all of them.
            yield from self._fleets_of(namespace)
            yield Key("Fleet", namespace, name)
            yield Key(_ORPHANS, namespace, "")
        elif kind in ("Embedder", "Reranker", "ModelRoute"):
            fleet = fleet_of(found, fleet_names(self.store.of("Fleet", namespace)))
            yield Key("Fleet", namespace, fleet) if fleet else Key(_ORPHANS, namespace, "")
            if cache := cache_of(found):
                yield Key("ModelCache", namespace, cache)
        elif kind == "ModelCache":
            yield Key("ModelCache", namespace, name)
            yield from self._fleets_of(namespace)
            # Models without a fleet are told too whether the cache that they name is there.
            yield Key(_ORPHANS, namespace, "")
        elif CACHE_LABEL in labels:
            yield Key("ModelCache", namespace, labels[CACHE_LABEL])
        elif owner := labels.get(FLEET_LABEL) or labels.get(_ORIGIN_LABEL):
            yield Key("Fleet", namespace, owner)

    def _fleets_of(self, namespace: str) -> Iterator[Key]:
        for each in self.store.of("Fleet", namespace):
            yield Key("Fleet", namespace, each["metadata"]["name"])

    def _add_all(self) -> None:
        for kind in ("Fleet", "Embedder", "Reranker", "ModelRoute", "ModelCache"):
            for found in self.store.of(kind):
                self._changed(found)

    async def _reconcile(self, key: Key) -> float | None:
        if not self.lease.leads or self.not_ready() or not self._looked:
            # Nothing is decided on half of what there is; all is added again on becoming leader.
            return 1.0 if self.lease.leads else None
        with self.metrics.reconcile_seconds.labels(key.kind).time():
            if key.kind == "Fleet":
                return await self._fleets.reconcile(key.namespace, key.name)
            if key.kind == "ModelCache":
                return await self._caches.reconcile(key.namespace, key.name)
            await self._fleets.reconcile_orphans(key.namespace)
        return None

    def _failed(self, key: Key, error: Exception) -> None:
        if isinstance(error, NotLeader):
            return
        reason = error.reason if isinstance(error, ApiError) else type(error).__name__
        self.metrics.reconcile_errors.labels(key.kind, reason).inc()
        known = isinstance(error, ApiError | OSError)
        where = f"{key.kind} {key.namespace}/{key.name}"
        _log.warning("%s: %s", where, str(error) or reason, exc_info=None if known else error)

    async def _look_at_definitions(self) -> None:
        """Keep up with what the cluster can do: kinds may be installed at any time."""
        while True:
            if self.not_ready():
                # What is not listed yet is not absent: what was made of it would be taken away.
                await asyncio.sleep(_LISTING_SECONDS)
                continue
            try:
                found = await self._free.get(kind_of("CustomResourceDefinition"), "", _DEFINITION)
            except (ApiError, OSError) as error:
                _log.warning("definition %s: %s", _DEFINITION, error)
            else:
                self._adopt(found)
            await asyncio.sleep(_DEFINITION_SECONDS)

    def _adopt(self, definition: Manifest | None) -> None:
        target = replace(
            _target(self._settings),
            kuberay=KubeRayFeatures.of_crd(definition) if definition else KubeRayFeatures(),
            monitoring=self.store.exists("PodMonitor"),
            gateway=self._settings.gateway if self.store.exists("GRPCRoute") else None,
        )
        known = self._looked and (definition is None) == (self._environment.kuberay is None)
        unchanged = known and target == self._environment.target
        self._environment.target, self._environment.kuberay = target, definition
        self._looked = True
        if not unchanged:
            self._add_all()

    def _counted(self, send: Send) -> Send:
        async def counted(request: Request) -> Answer:
            method = "WATCH" if request.streams else request.method
            started = time.monotonic()
            try:
                answer = await send(request)
            except BaseException:
                self.metrics.api_requests.labels(method, "none").inc()
                raise
            self.metrics.api_requests.labels(method, str(answer.status)).inc()
            _log.debug(
                "%s %s: %s in %.0f ms", method, request.path, answer.status,
                1e3 * (time.monotonic() - started),
            )  # fmt: skip
            return answer

        return counted


def _target(settings: Settings) -> Target:
    kuberay = settings.kuberay_namespace
    # KubeRay reads dashboards too: while nobody says where it runs, none may be shut out.
    readers = dict.fromkeys((settings.lease_namespace, kuberay)) if kuberay else ()
    return Target(
        image=settings.image,
        monitoring_namespace=settings.monitoring_namespace,
        control_namespaces=tuple(readers),
        cluster_domain=settings.cluster_domain,
    )
