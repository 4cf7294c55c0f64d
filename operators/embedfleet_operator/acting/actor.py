"""Making the cluster what was decided: apply what differs, take away what nobody wants, say so.

Every step may be the last before a crash and may be made again: an apply that was made changes
nothing, a delete names the object's uid, an event of the same words is the same event.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from embedfleet.rendering.plan import Plan
from embedfleet_operator.acting.taken import NameTaken, is_ours
from embedfleet_operator.cluster.api import FIELD_MANAGER, Api, ApiError
from embedfleet_operator.cluster.kinds import OWNED, kind_of
from embedfleet_operator.cluster.watching import Store
from embedfleet_operator.crds.status import FleetStatus, Status
from embedfleet_operator.deciding.differences import covers, owned_by, owner, signed
from embedfleet_operator.planning.bounds import bounds_patch
from embedfleet_operator.planning.durations import told
from embedfleet_operator.rendering import Manifest
from embedfleet_operator.reporting.reports import previous

__all__ = ["Actor"]

_log: Final = logging.getLogger("embedfleet.operator")

_MAX_NOTE_BYTES: Final = 1024
_MAX_WORD_BYTES: Final = 128
"""An Event's texts are measured in bytes, unlike those that a schema bounds."""
_Key = tuple[str, str]
"""Kind and name."""

_NOTHING: Final = Plan()
_ELLIPSIS: Final = " ..."
_SAME_EVENT_SECONDS: Final = 300
_OUTDATED: Final = (
    "The installed definition drops part of this status: it is older than the operator. Upgrade "
    "the chart embedfleet-crds."
)


class Actor:
    """Writes to the cluster, and keeps the copy of it fresh with the answers.

    Args:
        api: The API server.
        store: The copy.
        identity: This process, in events.
    """

    def __init__(self, api: Api, store: Store, identity: str) -> None:
        self._api = api
        self._store = store
        self._identity = identity
        self._answers: dict[tuple[str, str], tuple[Any, Any]] = {}

    async def apply(
        self, resource: Manifest, manifests: Iterable[Manifest], change: Plan = _NOTHING
    ) -> None:
        """Apply what a resource needs, where it is not so already.

        Args:
            resource: The owner of it all.
            manifests: What it needs.
            change: What that comes to, said before it is done.

        Raises:
            NameTaken: Something of it is there and is not this operator's. Then nothing is done.
        """
        wanted = [signed(each, owner(resource)) for each in manifests]
        ours = await self.claim(resource, wanted)
        await self.announce(resource, change)
        for each in wanted:
            live = self._live(each)
            if live is None or not (covers(live, each) or self._is_fixed(live, each)):
                # What came into being since it was looked for is a conflict, and looked at again.
                forced = live is not None or _key(each) in ours
                answer = await self._api.apply(each, force=forced)
                self._store.put(answer)
                self._keep(answer, each)

    def _live(self, wanted: Manifest) -> Manifest | None:
        metadata = wanted["metadata"]
        return self._store.get(wanted["kind"], metadata["namespace"], metadata["name"])

    async def claim(self, resource: Manifest, manifests: Iterable[Manifest]) -> set[_Key]:
        """Look for objects that are not in the copy, which holds labelled ones only.

        Server-side apply cannot say "only if there is none", and an object that was created first
        and applied later keeps fields that are said no more. So it is read before.

        Returns:
            Those that are there and are this operator's: just made, or robbed of their label.

        Raises:
            NameTaken: One is there and is not.
        """
        found: dict[_Key, Manifest] = {}
        for each in manifests:
            if self._live(each) is not None:
                continue
            metadata = each["metadata"]
            live = await self._api.get(kind_of(each), metadata["namespace"], metadata["name"])
            if live is not None:
                found[_key(each)] = live
        uid = resource["metadata"]["uid"]
        if taken := [live for live in found.values() if not is_ours(live, uid)]:
            raise NameTaken(resource, taken)
        return set(found)

    async def prune(
        self, resource: Manifest, wanted: Iterable[Manifest], kinds: Sequence[str] = ()
    ) -> None:
        """Delete what was made for a resource and is wanted no more; of some kinds, or of all."""
        keep = {(each["kind"], each["metadata"]["name"]) for each in wanted}
        uid, namespace = resource["metadata"]["uid"], resource["metadata"]["namespace"]
        for kind in OWNED:
            if kinds and kind.name not in kinds:
                continue
            for live in self._store.of(kind.name, namespace):
                known = (kind.name, live["metadata"]["name"]) in keep
                if not known and owned_by(live, uid) and not _is_going(live):
                    await self._api.delete(live)

    async def set_bounds(self, clusters: Iterable[Manifest], service: Manifest) -> None:
        """Give running clusters the bounds of their pools, which KubeRay does not."""
        for cluster in clusters:
            operations = list(bounds_patch(cluster, service))
            metadata = cluster["metadata"]
            if operations and not _is_going(cluster):
                kind = kind_of("RayCluster")
                answer = await self._api.patch(
                    kind, metadata["namespace"], metadata["name"], operations
                )
                self._store.put(answer)

    async def announce(self, resource: Manifest, change: Plan) -> None:
        """Say as an Event what is about to be done, and what it interrupts."""
        if change.changes:
            await self.say(
                resource, change.impact.label, told(change, previous(FleetStatus, resource))
            )

    async def say(
        self, resource: Manifest, reason: str, note: str, *, is_warning: bool = False
    ) -> None:
        """Write an Event, once for the same words within minutes.

        One that cannot be written is logged: nothing waits for what is only said.
        """
        metadata = resource["metadata"]
        # The same words are said again when the same thing is done again later.
        moment = int(datetime.now(UTC).timestamp()) // _SAME_EVENT_SECONDS
        words = f"{metadata['uid']} {metadata.get('generation')} {moment} {reason} {note}"
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{digest}",
                "namespace": metadata["namespace"],
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": FIELD_MANAGER,
            "reportingInstance": _cut(self._identity, _MAX_WORD_BYTES),
            "action": "Reconcile",
            "reason": reason,
            "type": "Warning" if is_warning else "Normal",
            "note": _cut(note, _MAX_NOTE_BYTES),
            "regarding": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }
        try:
            await self._api.create(event)
        except (ApiError, OSError) as error:
            # Said already, or the namespace is going.
            if not isinstance(error, ApiError) or error.status not in (403, 409):
                _log.warning("event %s of %s: %s", reason, metadata["name"], error)

    async def report(self, resource: Manifest, status: Status) -> None:
        """Write a status that says something else than before."""
        said = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        metadata = resource["metadata"]
        stored = resource.get("status")
        if said == stored or self._answers.get(("status", metadata["uid"])) == (said, stored):
            return
        body = {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "status": said,
        }
        try:
            answer = await self._api.apply(body, "status")
            self._store.put(answer)
            if said != answer.get("status"):
                self._answers["status", metadata["uid"]] = (said, answer.get("status"))
                await self.say(resource, "DefinitionsOutdated", _OUTDATED, is_warning=True)
        except ApiError as error:
            # Deleted meanwhile; with another of its name in its place it is a conflict.
            if error.status != 404:
                raise

    def _is_fixed(self, live: Manifest, wanted: Manifest) -> bool:
        """Whether a live object cannot become what is wanted, so that trying again is in vain.

        A Job's pods never change, and what the API server has just dropped it would drop again.
        """
        if live["kind"] == "Job":
            return True
        known = self._answers.get((live["kind"], live["metadata"]["uid"]))
        return known == (wanted, _version(live))

    def _keep(self, answer: Manifest, said: Manifest) -> None:
        """Remember what an apply came to where the answer is less than was said."""
        key = answer["kind"], answer["metadata"]["uid"]
        if covers(answer, said):
            self._answers.pop(key, None)
        else:
            _log.warning("%s/%s is not kept as applied", key[0], answer["metadata"]["name"])
            self._answers[key] = (said, _version(answer))

    async def set_finalizer(self, resource: Manifest, name: str, *, wanted: bool) -> None:
        """Hold a resource's deletion back, or let it go."""
        metadata = resource["metadata"]
        current: list[str] = metadata.get("finalizers") or []
        if (name in current) == wanted:
            return
        names = [*current, name] if wanted else [each for each in current if each != name]
        operations: list[dict[str, Any]] = [
            _test("uid", metadata), _test("resourceVersion", metadata),
            {"op": "add", "path": "/metadata/finalizers", "value": names},
        ]  # fmt: skip
        kind = kind_of(resource)
        await self._api.patch(kind, metadata["namespace"], metadata["name"], operations)


def _key(manifest: Manifest) -> _Key:
    return manifest["kind"], manifest["metadata"]["name"]


def _cut(text: str, num_bytes: int) -> str:
    """Shorten a text to so many bytes of UTF-8, between two characters."""
    encoded = text.encode()
    if len(encoded) <= num_bytes:
        return text
    return encoded[: num_bytes - len(_ELLIPSIS)].decode(errors="ignore") + _ELLIPSIS


def _version(live: Manifest) -> Any:
    """Tell versions of what was asked for apart; kinds without a status have one for everything."""
    return live["metadata"].get("generation") or live["metadata"]["resourceVersion"]


def _test(field: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"op": "test", "path": f"/metadata/{field}", "value": metadata[field]}


def _is_going(live: Manifest) -> bool:
    return "deletionTimestamp" in live["metadata"]
