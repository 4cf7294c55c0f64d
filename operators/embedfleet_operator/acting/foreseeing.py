"""What running replicas would say to settings that they are yet to be given.

Serve stops replicas that refuse new settings, so they are asked before.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

import grpc

from embedfleet.client.direct import describe
from embedfleet.errors import EmbedfleetError, InvalidManifest
from embedfleet.golden import Golden, drift
from embedfleet.rendering.fitting import check_dimensions
from embedfleet.rendering.names import Model, application
from embedfleet.rendering.replica import ReplicaSettings
from embedfleet_operator.acting.golden import record
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.observing.held import gets_other_golden, other_defaults
from embedfleet_operator.observing.judging import Judged
from embedfleet_operator.observing.seen import Seen

__all__ = ["Foreseer"]

_log: Final = logging.getLogger("embedfleet.operator")

_GOLDEN_SECONDS: Final = 20.0
_FIT_SECONDS: Final = 5.0


class Foreseer:
    """Asks the models of fleets."""

    def __init__(self) -> None:
        self._foretold: dict[str, tuple[tuple[Golden, float, tuple[int, ...]], str]] = {}

    async def foresee(self, seen: Seen, address: tuple[str, int]) -> Seen:
        """Add what replicas would say to other golden outputs, and to other defaults."""
        held = [each for each in seen.models if gets_other_golden(seen, each)]
        fitted = [
            (each.ref, each.resource, other)
            for each in seen.models
            if each.resource is not None and (other := other_defaults(seen, each))
        ]
        if not held and not fitted:
            return seen
        async with grpc.aio.insecure_channel("{}:{}".format(*address)) as channel:
            foreseen = await asyncio.gather(*(self._drift(channel, seen, each) for each in held))
            misfits = await asyncio.gather(*(_misfit(channel, *what) for what in fitted))
        return replace(
            seen,
            foreseen={each.ref: said for each, said in zip(held, foreseen, strict=True)},
            misfits={ref: said for (ref, *_), said in zip(fitted, misfits, strict=True) if said},
        )

    async def _drift(
        self, channel: grpc.aio.Channel, seen: Seen, each: Judged[Model]
    ) -> str | None:
        model = each.resource
        if model is None:
            return None
        name, golden = application(model), seen.goldens[each.ref]
        bound = model.spec.verification.bound
        # The same replicas would say the same again.
        question = (golden, bound, seen.serve.applications[name].pids)
        before = self._foretold.get(each.raw["metadata"]["uid"])
        if before is not None and before[0] == question:
            return before[1]
        try:
            served = await record(channel, name, model.name, model.spec.role, _GOLDEN_SECONDS)
        except (EmbedfleetError, TimeoutError, OSError) as error:
            _log.warning("golden outputs of %s: %s", each.ref, error)
            return None
        answer = drift(golden, served, bound)
        self._foretold[each.raw["metadata"]["uid"]] = (question, answer)
        return answer


async def _misfit(
    channel: grpc.aio.Channel, ref: str, model: Model, settings: ReplicaSettings
) -> Refusal | None:
    """Say why a model that runs must not be given its defaults; None if it can do them."""
    try:
        described = await describe(channel, application(model), model.name, _FIT_SECONDS)
        check_dimensions(settings, described.native_dimension)
    except InvalidManifest as unfit:
        return Refusal(Reason.INVALID, unfit.message)
    except EmbedfleetError as silent:
        return Refusal(
            Reason.UNREACHABLE,
            f"{ref} does not say whether it can do the new default: "
            f"{silent.message.rstrip('.')}. It is asked again.",
        )
    return None
