"""One fleet, again and again: observe, decide, act, report. The only place where the four meet."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from embedfleet.errors import EmbedfleetError, InvalidManifest
from embedfleet.resources import Fleet, ModelCache
from embedfleet.resources.rules import Model
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.acting.foreseeing import Foreseer
from embedfleet_operator.acting.recording import Recorder
from embedfleet_operator.acting.serve_clusters import (
    KubeRayCluster,
    RestCluster,
    ServeCluster,
    cleared,
)
from embedfleet_operator.acting.taken import NameTaken
from embedfleet_operator.cluster.api import Api, ApiError
from embedfleet_operator.cluster.kinds import OWNED, kind_of
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.conditions.verdicts import Verdict
from embedfleet_operator.crds.status import CacheStatus
from embedfleet_operator.deciding.decide import Decision, decide, secrets_of
from embedfleet_operator.deciding.differences import owned_by
from embedfleet_operator.deciding.owning import FINALIZER
from embedfleet_operator.observing.cache_users import is_there
from embedfleet_operator.observing.judging import (
    Judged,
    fleet_names,
    fleet_of,
    judged,
    judged_fleet,
    judged_models,
    judged_routes,
)
from embedfleet_operator.observing.remembering import memory_name, recalled
from embedfleet_operator.observing.seen import Seen
from embedfleet_operator.rendering import Manifest
from embedfleet_operator.rendering.manifests import FLEET_LABEL
from embedfleet_operator.rendering.rayservice import dashboard_address, serve_address
from embedfleet_operator.reporting.cache import cached_verdict
from embedfleet_operator.reporting.reports import orphan_statuses, previous

__all__ = ["Fleets"]

_log: Final = logging.getLogger("embedfleet.operator")

_ORIGIN_LABEL: Final = "ray.io/originated-from-cr-name"
_MOVING_SECONDS: Final = 2.0
_RESTING_SECONDS: Final = 10.0
_LETTING_GO: Final = timedelta(minutes=5)
"""A cluster that does not answer for so long is taken for gone: deletion must not wait for ever."""

Connect = Callable[[Fleet, str, str], ServeCluster]
"""Opens a fleet's Ray cluster from its dashboard's address and token."""


def connect(fleet: Fleet, dashboard: str, token: str) -> ServeCluster:
    """Open the cluster that a fleet asks for."""
    if fleet.spec.existing_cluster is not None:
        return RestCluster(dashboard, token)
    return KubeRayCluster(dashboard, token)


class Fleets:
    """Reconciles fleets and what belongs to them.

    Args:
        api: The API server.
        store: What is watched of it.
        environment: What else there is; others keep it up to date.
        actor: Writes.
        connect: Opens Ray clusters.
    """

    def __init__(
        self,
        api: Api,
        store: Store,
        environment: Environment,
        actor: Actor,
        connect: Connect = connect,
    ) -> None:
        self._api = api
        self._store = store
        self._environment = environment
        self._actor = actor
        self._connect = connect
        self._recorder = Recorder(api, store, actor)
        self._foreseer = Foreseer()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one fleet to what its resources say.

        Returns:
            Seconds after which Serve is to be asked again; None if there is no such fleet.
        """
        raw = self._store.get("Fleet", namespace, name)
        if raw is None:
            return None
        if "deletionTimestamp" in raw["metadata"]:
            return await self._let_go(raw)
        seen, cluster = await self._observe(raw)
        decision = decide(seen)
        try:
            await self._act(seen, decision, cluster)
        except NameTaken as taken:
            decision = decision.refused_for(seen, taken.refusal)
        except (ApiError, EmbedfleetError) as failure:
            await self._report(seen, decision.failed(seen, str(failure)))
            raise
        await self._report(seen, decision)
        if seen.fleet.resource is not None:
            address = serve_address(seen.fleet.resource, seen.target)
            await self._recorder.record(seen, address)
        return _MOVING_SECONDS if decision.moves else _RESTING_SECONDS

    async def foresee(self, namespace: str, name: str) -> Decision:
        """Decide about a fleet that is there, and do nothing.

        Raises:
            InvalidManifest: There is no such fleet.
        """
        raw = self._store.get("Fleet", namespace, name)
        if raw is None:
            raise InvalidManifest(f"Fleet {namespace}/{name} is not there. Apply it first.")
        seen, _ = await self._observe(raw)
        decision = decide(seen)
        try:
            await self._actor.claim(raw, decision.manifests or ())
        except NameTaken as taken:
            return decision.refused_for(seen, taken.refusal)
        return decision

    async def reconcile_orphans(self, namespace: str) -> None:
        """Tell what belongs to no fleet so."""
        names = fleet_names(self._store.of("Fleet", namespace))
        models = self._of(namespace, "Embedder", "Reranker")
        orphans = [each for each in models if not fleet_of(each, names)]
        caches = {each.name: each.resource for each in self._caches(namespace)}
        of_nobody = judged_models(None, names, orphans, caches)
        routes = [each for each in self._of(namespace, "ModelRoute") if not fleet_of(each, names)]
        to_nowhere = judged_routes(None, names, routes, of_nobody)
        found = orphan_statuses(of_nobody, to_nowhere, datetime.now(UTC))
        every: list[Judged[Any]] = [*of_nobody, *to_nowhere]
        for each in every:
            await self._actor.report(each.raw, found[each.ref])

    def _of(self, namespace: str, *kinds: str) -> list[Manifest]:
        """Read the resources of some kinds that are not on their way out."""
        found = (each for kind in kinds for each in self._store.of(kind, namespace))
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    async def _observe(self, raw: Manifest) -> tuple[Seen, ServeCluster | None]:
        namespace, name = raw["metadata"]["namespace"], raw["metadata"]["name"]
        fleet = judged_fleet(raw, self._store.of("Fleet"))
        fleets = fleet_names(self._store.of("Fleet", namespace))
        own = [
            each
            for each in self._of(namespace, "Embedder", "Reranker", "ModelRoute")
            if fleet_of(each, fleets) == name
        ]
        caches = {each.name: each for each in self._caches(namespace)}
        models = judged_models(
            fleet.resource,
            fleets,
            (each for each in own if each["kind"] != "ModelRoute"),
            {name: each.resource for name, each in caches.items()},
        )
        # A fleet that cannot be understood hides no fault of its models.
        routes = judged_routes(
            fleet.resource, fleets, (each for each in own if each["kind"] == "ModelRoute"), models
        )
        uid = raw["metadata"]["uid"]
        owned = tuple(
            live
            for kind in OWNED
            for live in self._store.of(kind.name, namespace)
            if owned_by(live, uid)
        )
        secrets = await self._secrets(namespace, fleet)
        goldens = await self._recorder.find(namespace, models)
        models = tuple(
            each.refused(goldens.refusals[each.ref]) if each.ref in goldens.refusals else each
            for each in models
        )
        seen = Seen(
            fleet=fleet,
            now=datetime.now(UTC),
            target=self._environment.target,
            models=models,
            routes=routes,
            caches=tuple(each.resource for each in caches.values() if each.resource),
            cached=_cached(models, caches),
            owned=owned,
            clusters=self._labelled("RayCluster", namespace, _ORIGIN_LABEL, name),
            nodes=self._labelled("Pod", namespace, FLEET_LABEL, name),
            served=recalled(self._store.get("ConfigMap", namespace, memory_name(name))),
            goldens=goldens.found,
            secrets=secrets,
            kuberay=self._environment.kuberay,
        )
        if fleet.resource is None:
            return seen, None
        cluster = self._open(fleet.resource, secrets)
        seen = replace(seen, serve=await cluster.observe())
        address = serve_address(fleet.resource, seen.target)
        return await self._foreseer.foresee(seen, address), cluster

    def _caches(self, namespace: str) -> list[Judged[ModelCache]]:
        there = (each for each in self._store.of("ModelCache", namespace) if is_there(each))
        return [judged(ModelCache, each) for each in there]

    def _labelled(self, kind: str, namespace: str, label: str, value: str) -> tuple[Manifest, ...]:
        return tuple(
            each
            for each in self._store.of(kind, namespace)
            if each["metadata"].get("labels", {}).get(label) == value
        )

    async def _secrets(self, namespace: str, fleet: Judged[Fleet]) -> dict[str, Manifest | None]:
        if fleet.resource is None:
            return {}
        names = secrets_of(fleet.resource)
        return {name: await self._api.get(kind_of("Secret"), namespace, name) for name in names}

    def _open(self, fleet: Fleet, secrets: Mapping[str, Manifest | None]) -> ServeCluster:
        secret = secrets.get(fleet.spec.auth.token_secret_name) if fleet.spec.auth else None
        encoded = ((secret or {}).get("data") or {}).get("auth_token", "")
        token = base64.b64decode(encoded).decode(errors="replace").strip()
        return self._connect(fleet, dashboard_address(fleet, self._environment.target), token)

    async def _act(self, seen: Seen, decision: Decision, cluster: ServeCluster | None) -> None:
        if decision.manifests is None or decision.config is None or cluster is None:
            return
        raw, fleet = seen.fleet.raw, seen.fleet.resource
        outlives = fleet is not None and fleet.spec.existing_cluster is not None
        if outlives:
            await self._actor.set_finalizer(raw, FINALIZER, wanted=True)
        await self._actor.apply(raw, decision.manifests, decision.plan)
        await self._actor.prune(raw, decision.manifests)
        for service in decision.manifests:
            if service["kind"] == "RayService":
                await self._actor.set_bounds(seen.clusters, service)
        if outlives and not seen.serve.answers:
            return
        await cluster.deploy(decision.config, seen.serve)

    async def _report(self, seen: Seen, decision: Decision) -> None:
        every: list[Judged[Any]] = [*seen.models, *seen.routes, seen.fleet]
        for each in every:
            await self._actor.report(each.raw, decision.statuses[each.ref])

    async def _let_go(self, raw: Manifest) -> float | None:
        """Take a deleted fleet's models away from a cluster that outlives it."""
        if FINALIZER not in (raw["metadata"].get("finalizers") or ()):
            return None
        found = judged_fleet(raw, self._store.of("Fleet"))
        fleet = found.resource
        if fleet is not None and fleet.spec.existing_cluster is not None:
            secrets = await self._secrets(raw["metadata"]["namespace"], found)
            cluster = self._open(fleet, secrets)
            try:
                left = await cleared(cluster, fleet, is_refused=found.refusal is not None)
            except EmbedfleetError as error:
                began = datetime.fromisoformat(raw["metadata"]["deletionTimestamp"])
                if datetime.now(UTC) - began < _LETTING_GO:
                    _log.warning("%s: %s", raw["metadata"]["name"], error)
                    return _RESTING_SECONDS
                left = f"Models may be left in the Ray cluster: {error}"
            if left:
                await self._actor.say(raw, "LeftBehind", left, is_warning=True)
        await self._actor.set_finalizer(raw, FINALIZER, wanted=False)
        return None


def _cached(
    models: Iterable[Judged[Model]], caches: Mapping[str, Judged[ModelCache]]
) -> dict[str, Verdict]:
    """Tell how the caches are that models name, as told for what is in their specs now."""
    found = {}
    for each in models:
        name = each.resource.spec.model.cache if each.resource else None
        if name is None:
            continue
        cache = caches.get(name)
        status = previous(CacheStatus, cache.raw) if cache else None
        # A deletion is counted as a generation, though it changes nothing of the spec.
        going = cache is not None and "deletionTimestamp" in cache.raw["metadata"]
        expected = (cache.generation, cache.generation - going) if cache else ()
        told = status is not None and status.observed_generation in expected
        found[each.ref] = cached_verdict(name, status if told else None)
    return found
