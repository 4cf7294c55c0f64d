"""Records golden outputs of models that serve for the first time, and finds those there are.

A model that cannot be asked now is asked again later: nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from embedfleet.errors import EmbedfleetError, InvalidManifest
from embedfleet.golden import Golden
from embedfleet.rendering.names import Model, application
from embedfleet.resources import Fleet
from embedfleet.resources.shared import Backend
from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.acting.golden import golden_config_map, golden_name, read_golden, record
from embedfleet_operator.acting.taken import NameTaken
from embedfleet_operator.cluster.api import Api
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.observing.judging import Judged
from embedfleet_operator.observing.seen import Seen

__all__ = ["Goldens", "Recorder"]

_log: Final = logging.getLogger("embedfleet.operator")

_AT_ONCE: Final = 4
_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Goldens:
    """Golden outputs of a fleet's models by resource, and why some cannot be used."""

    found: Mapping[str, Golden]
    refusals: Mapping[str, Refusal]


class Recorder:
    """Finds and records golden outputs."""

    def __init__(self, api: Api, store: Store, actor: Actor) -> None:
        self._api = api
        self._store = store
        self._actor = actor
        self._not_before: dict[str, float] = {}

    async def find(self, namespace: str, models: Iterable[Judged[Model]]) -> Goldens:
        """Read what models are held to: what their spec names, or what was recorded."""
        found: dict[str, Golden] = {}
        refusals: dict[str, Refusal] = {}
        for each in models:
            model = each.resource
            if model is None:
                continue
            pinned = model.spec.verification.golden_config_map_name
            if pinned:
                kept = await self._api.get(kind_of("ConfigMap"), namespace, pinned)
            else:
                kept = self._store.get("ConfigMap", namespace, golden_name(model))
                if kept is None:
                    continue
            try:
                found[each.ref] = read_golden(kept, model)
            except InvalidManifest as error:
                # What was recorded badly is recorded again; what people wrote is theirs to mend.
                if pinned:
                    refusals[each.ref] = Refusal(Reason.GOLDEN_MISSING, error.message)
        return Goldens(found, refusals)

    async def record(self, seen: Seen, address: tuple[str, int]) -> None:
        """Record models that answer and have nothing to be held to yet."""
        fleet = seen.fleet.resource
        due = [each for each in seen.models if self._is_due(seen, each)][:_AT_ONCE]
        if fleet is None or not due:
            return
        async with grpc.aio.insecure_channel("{}:{}".format(*address)) as channel:
            await asyncio.gather(*(self._record(channel, fleet, each) for each in due))

    def _is_due(self, seen: Seen, each: Judged[Model]) -> bool:
        model = each.resource
        if model is None or each.refusal or each.ref in seen.goldens:
            return False
        if model.spec.backend is Backend.ECHO or model.spec.verification.golden_config_map_name:
            return False
        state = seen.serve.applications.get(application(model))
        answers = state is not None and state.status == "RUNNING" and bool(state.pids)
        return answers and time.monotonic() >= self._not_before.get(each.raw["metadata"]["uid"], 0)

    async def _record(self, channel: grpc.aio.Channel, fleet: Fleet, each: Judged[Model]) -> None:
        model = each.resource
        if model is None:
            return
        try:
            golden = await record(
                channel, application(model), model.name, model.spec.role, _SECONDS
            )
        except (EmbedfleetError, TimeoutError, OSError) as error:
            self._later(each, error)
            return
        try:
            await self._actor.apply(each.raw, [golden_config_map(fleet, model, golden)])
        except NameTaken as taken:
            self._later(each, taken)
            await self._actor.say(each.raw, str(Reason.NAME_TAKEN), str(taken), is_warning=True)

    def _later(self, each: Judged[Model], error: Exception) -> None:
        uid = each.raw["metadata"]["uid"]
        self._not_before[uid] = time.monotonic() + _RETRY_SECONDS
        _log.warning("golden outputs of %s: %s", each.ref, error)
