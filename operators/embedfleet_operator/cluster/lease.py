"""Which of several operators acts: the holder of one Lease (coordination.k8s.io/v1).

A follower trusts its own clock only: a lease has ended when its record has not changed for its
whole duration as seen from here, whatever times the record says. A leader that could not renew
stops writing before a follower may start, so that two never act at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from embedfleet_operator.cluster.api import Api, ApiError
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.rendering.manifests import Manifest

__all__ = ["Lease", "LeaseSpec", "NotLeader"]

_log: Final = logging.getLogger("embedfleet.operator")


class NotLeader(Exception):
    """This process does not hold the lease, or cannot be sure that it still does."""


@dataclass(frozen=True, slots=True)
class LeaseSpec:
    """The lease and how it is held, in seconds.

    Attributes:
        duration: A leader that has not renewed for so long is not one any more.
        renew: How long after the last renewal a leader itself stops writing: earlier than
            `duration` by what a request and two clocks may differ.
        retry: Time between two attempts.
    """

    namespace: str
    name: str
    identity: str
    duration: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Lease:
    """Holds a lease, or waits for it.

    Args:
        api: Connection without a gate: taking the lease is what opens the gate.
        spec: The lease.
        clock: Monotonic seconds.
    """

    def __init__(
        self, api: Api, spec: LeaseSpec, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._spec = spec
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: tuple[Any, float] | None = None

    @property
    def leads(self) -> bool:
        """Whether this process may act now."""
        renewed = self._renewed_at
        return renewed is not None and self._clock() - renewed < self._spec.renew

    def check(self) -> None:
        """Raise `NotLeader` unless this process may write now."""
        if not self.leads:
            raise NotLeader(f"lease {self._spec.namespace}/{self._spec.name} is not held")

    async def run(self, gained: Callable[[], None]) -> None:
        """Take the lease whenever it is free and keep it; tell each time that it was gained."""
        while True:
            led = self.leads
            try:
                async with asyncio.timeout(self._spec.renew / 2):
                    if await self.attempt():
                        _log.info("%s holds the lease", self._spec.identity)
                        gained()
            except ApiError as error:
                if not error.is_transient:
                    _log.error("lease: %s", error)
            except OSError as error:
                _log.warning("lease: %s", str(error) or type(error).__name__)
            if led and not self.leads:
                _log.warning("%s lost the lease", self._spec.identity)
            await asyncio.sleep(self._spec.retry * random.uniform(0.8, 1.2))

    async def attempt(self) -> bool:
        """Renew the lease, or take it if its holder has let it end.

        Returns:
            Whether it was not held until now; a renewal that came too late counts, since what was
            to be done meanwhile was not.
        """
        # From before the request: the server may have counted it from then on.
        now = self._clock()
        found = await self._api.get(kind_of("Lease"), self._spec.namespace, self._spec.name)
        if found is None:
            await self._api.create(self._record({}, now_held=False))
        elif self._may_take(found, now):
            await self._api.replace(self._record(found, now_held=self._is_mine(found)))
        else:
            self._renewed_at = None
            return False
        led = self.leads
        self._renewed_at = now
        return self.leads and not led

    async def release(self) -> None:
        """Give the lease back, so that the next holder need not wait for its end."""
        if not self.leads:
            return
        self._renewed_at = None
        found = await self._api.get(kind_of("Lease"), self._spec.namespace, self._spec.name)
        if found is not None and self._is_mine(found):
            found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._api.replace(found)

    def _is_mine(self, found: Manifest) -> bool:
        return bool(_spec(found).get("holderIdentity") == self._spec.identity)

    def _may_take(self, found: Manifest, now: float) -> bool:
        record = _spec(found)
        if self._is_mine(found) or not record.get("holderIdentity"):
            return True
        if self._seen is None or self._seen[0] != record:
            # From after the answer: its holder may have renewed while the request was on its way.
            self._seen = (record, self._clock())
        duration = float(record.get("leaseDurationSeconds") or self._spec.duration)
        return now - self._seen[1] > max(duration, self._spec.duration)

    def _record(self, found: Manifest, *, now_held: bool) -> Manifest:
        spec = _spec(found)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changes = {
            "holderIdentity": self._spec.identity,
            "leaseDurationSeconds": round(self._spec.duration),
            "renewTime": stamp,
        }
        if not now_held:
            changes["acquireTime"] = stamp
            changes["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(found)
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": found.get("metadata")
            or {"name": self._spec.name, "namespace": self._spec.namespace},
            "spec": {**spec, **changes},
        }


def _spec(found: Manifest) -> Manifest:
    return found.get("spec") or {}
