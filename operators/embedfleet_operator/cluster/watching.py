"""A copy of what the cluster holds, kept fresh by lists and watches.

A watch tells what changes, and a list from time to time what is: an event that got lost is made
good for by the next list, so nothing rests on every event arriving, once, or in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from embedfleet_operator.cluster.api import Api, ApiError, Listing
from embedfleet_operator.cluster.kinds import Kind, kind_of
from embedfleet_operator.rendering.manifests import Manifest

__all__ = ["Changed", "Follower", "Store"]

_log: Final = logging.getLogger("embedfleet.operator")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STALE_LISTS: Final = 5
"""Lists in a row that may be older than what was seen; then it is the cluster that went back."""

Key = tuple[str, str]
"""Namespace and name."""

Changed = Callable[[Manifest], None]


class Store:
    """Objects by kind, namespace and name. What is in it must not be changed in place."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, Manifest]] = {}
        self._listed: dict[tuple[str, str], bool] = {}
        self._newest: dict[str, int] = {}
        self._gone: dict[str, dict[str, int]] = {}

    def synced(self, kind: Kind, namespace: str = "") -> bool:
        """Whether a kind has been listed, or is known not to exist."""
        return (kind.name, namespace) in self._listed

    def exists(self, kind: str) -> bool:
        """Whether the cluster has a kind."""
        return any(found for (name, _), found in self._listed.items() if name == kind)

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Read one object."""
        return self._objects.get(kind, {}).get((namespace, name))

    def of(self, kind: str, namespace: str = "") -> list[Manifest]:
        """Read the objects of a kind by name, in a namespace or in all."""
        objects = sorted(self._objects.get(kind, {}).items())
        return [found for (inside, _), found in objects if namespace in ("", inside)]

    def put(self, found: Manifest) -> bool:
        """Keep an object; tells whether it is another than before.

        An older version than is kept is dropped, and so is one of an object that is gone: events
        may come late or twice, and the answer to a write before or after them.
        """
        objects = self._objects.setdefault(kind_of(found).name, {})
        before = objects.get(_key(found))
        if before is not None and _version(found) <= _version(before):
            return False
        gone = self._gone.get(found["kind"], {}).get(found["metadata"]["uid"])
        if gone is not None and _version(found) <= gone:
            return False
        self._see(found["kind"], _version(found))
        objects[_key(found)] = _slim(found)
        return True

    def drop(self, found: Manifest) -> bool:
        """Forget an object, unless another of its name or a later version of it is kept."""
        version, uid = _version(found), found["metadata"]["uid"]
        self._see(found["kind"], version)
        objects = self._objects.get(kind_of(found).name, {})
        before = objects.get(_key(found))
        is_same = before is not None and before["metadata"]["uid"] == uid
        if before is not None and is_same and _version(before) > version:
            return False
        self._gone.setdefault(found["kind"], {})[uid] = version
        if not is_same:
            return False
        del objects[_key(found)]
        return True

    def replace(self, kind: Kind, namespace: str, listing: Listing | None) -> list[Manifest]:
        """Hold just what was listed, and tell what is new, other or gone.

        None says that the cluster has no such kind.
        """
        items = listing.items if listing else []
        if listing:
            self._newest[kind.name] = int(listing.resource_version)
        objects = self._objects.setdefault(kind.name, {})
        old = {key: found for key, found in objects.items() if namespace in ("", key[0])}
        new = {_key(item): _slim(item) for item in items}
        for key in old:
            del objects[key]
        objects.update(new)
        self._listed[kind.name, namespace] = listing is not None
        # What was deleted before the list comes late only before it.
        self._gone.pop(kind.name, None)
        gone = [found for key, found in old.items() if key not in new]
        other = [found for key, found in new.items() if key not in old or old[key] != found]
        return [*gone, *other]

    def is_stale(self, kind: Kind, listing: Listing) -> bool:
        """Whether a list is older than something that was seen."""
        return int(listing.resource_version) < self._newest.get(kind.name, 0)

    def _see(self, kind: str, version: int) -> None:
        self._newest[kind] = max(version, self._newest.get(kind, 0))


@dataclass
class Follower:
    """Keeps the copy of one kind, in one namespace or in all, and tells what changed.

    Attributes:
        resync_seconds: Longest time between two lists.
    """

    api: Api
    kind: Kind
    namespace: str
    store: Store
    changed: Changed
    resync_seconds: float = 300.0

    async def run(self) -> None:
        """List, watch, and start over, for ever."""
        failures = 0
        while True:
            try:
                await self._list_and_watch(failures)
                failures = 0
            except ApiError as error:
                failures = self._failed(error, failures)
            except (OSError, ValueError, KeyError) as error:
                failures += 1
                _log.warning(
                    "watching %s: %s", self.kind.plural, str(error) or type(error).__name__
                )
            await asyncio.sleep(_pause(failures))

    async def _list_and_watch(self, failures: int) -> None:
        listing = await self.api.list_all(self.kind, self.namespace)
        if self.store.is_stale(self.kind, listing) and failures < _STALE_LISTS:
            raise ValueError("the list is older than what was seen")
        self._tell(self.store.replace(self.kind, self.namespace, listing))
        with contextlib.suppress(TimeoutError):
            # Not all at once, where one operator follows many kinds.
            async with asyncio.timeout(self.resync_seconds * random.uniform(0.8, 1.0)):
                await self._watch(listing.resource_version)

    async def _watch(self, version: str) -> None:
        while True:
            async for event, found in self.api.watch(self.kind, self.namespace, version):
                version = found["metadata"]["resourceVersion"]
                found = {"apiVersion": self.kind.api_version, "kind": self.kind.name, **found}
                if event == "BOOKMARK":
                    continue
                if self.store.drop(found) if event == "DELETED" else self.store.put(found):
                    self.changed(found)
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    def _failed(self, error: ApiError, failures: int) -> int:
        if error.status == 410:
            return 0
        if error.status == 404 and self.kind.optional:
            self._tell(self.store.replace(self.kind, self.namespace, None))
            return failures + 1
        _log.warning("watching %s: %s", self.kind.plural, error)
        return failures + 1

    def _tell(self, found: list[Manifest]) -> None:
        for each in found:
            self.changed(each)


def _pause(failures: int) -> float:
    if not failures:
        return 0.0
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)


def _key(found: Manifest) -> Key:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(found: Manifest) -> int:
    # Comparable as numbers: documented since Kubernetes 1.35, and so with etcd before.
    return int(found["metadata"]["resourceVersion"])


def _slim(found: Manifest) -> Manifest:
    """Leave out what nobody reads and what is most of an object's size."""
    metadata = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    return {**found, "metadata": metadata}
