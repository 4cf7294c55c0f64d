"""One ModelCache, again and again: its claim and Job made, and its Job's last words told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from embedfleet.resources import ModelCache
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.environment import Environment
from embedfleet_operator.acting.taken import NameTaken
from embedfleet_operator.cluster.api import ApiError
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.conditions.reasons import Observation, Reason
from embedfleet_operator.crds.status import CacheStatus, Truth
from embedfleet_operator.observing.cache_users import FINALIZER, cache_users, is_there
from embedfleet_operator.observing.judging import judged
from embedfleet_operator.rendering.caching import cache_objects, job_name
from embedfleet_operator.rendering.manifests import CACHE_LABEL
from embedfleet_operator.reporting.cache import CacheObservation, cache_status
from embedfleet_operator.reporting.reports import previous

__all__ = ["Caches"]

_JOB_LABEL: Final = "batch.kubernetes.io/job-name"
_LOOK_SECONDS: Final = 60.0
_HELD_SECONDS: Final = 5.0
"""Who deletes a cache waits for it."""


class Caches:
    """Reconciles caches."""

    def __init__(self, store: Store, environment: Environment, actor: Actor) -> None:
        self._store = store
        self._environment = environment
        self._actor = actor

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one cache to what its resource says.

        Returns:
            Seconds after which to look whether it is stuck; None if nothing is on its way.
        """
        raw = self._store.get("ModelCache", namespace, name)
        if raw is None or not is_there(raw):
            return None
        users = self._users(namespace, name)
        await self._actor.set_finalizer(raw, FINALIZER, wanted=bool(users))
        is_going = "deletionTimestamp" in raw["metadata"]
        if is_going and not users:
            return None
        found = judged(ModelCache, raw)
        cache = found.resource
        job = job_name(cache) if cache else ""
        pods = [
            pod
            for pod in self._store.of("Pod", namespace)
            if (labels := pod["metadata"].get("labels", {})).get(CACHE_LABEL) == name
            and labels.get(_JOB_LABEL) == job
        ]
        observed = CacheObservation(
            generation=found.generation,
            previous=previous(CacheStatus, raw),
            refusal=found.refusal,
            job=self._store.get("Job", namespace, job),
            pods=pods,
            held_by=users if is_going else (),
        )
        now = datetime.now(UTC)
        status = cache_status(cache, observed, now)
        try:
            if cache is not None and not is_going:
                objects = cache_objects(cache, self._environment.target)
                await self._actor.apply(raw, objects)
                await self._actor.prune(raw, objects, kinds=("Job",))
        except NameTaken as taken:
            status = cache_status(cache, replace(observed, refusal=taken.refusal), now)
            return _LOOK_SECONDS
        except ApiError as error:
            status = cache_status(cache, replace(observed, failure=str(error)), now)
            if not error.is_transient:
                await self._actor.say(raw, str(Reason.APPLY_FAILED), str(error), is_warning=True)
            raise
        finally:
            await self._actor.report(raw, status)
        if is_going:
            return _HELD_SECONDS
        moves = any(
            each.type == Observation.PROGRESSING and each.status is Truth.TRUE
            for each in status.conditions or ()
        )
        return _LOOK_SECONDS if moves else None

    def _users(self, namespace: str, name: str) -> tuple[str, ...]:
        models = (
            each for kind in ("Embedder", "Reranker") for each in self._store.of(kind, namespace)
        )
        return cache_users(name, models, self._store.of("ConfigMap", namespace))
