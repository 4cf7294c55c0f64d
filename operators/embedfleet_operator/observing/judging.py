"""Resources as the API server gives them into resources that may be acted on, or why not.

The schema has judged each of them alone; here they are judged again, since an older schema may be
installed, and against each other. Pure: never raises, whatever it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from embedfleet.errors import Problem
from embedfleet.resources import Embedder, Fleet, ModelCache, ModelRoute
from embedfleet.resources.base import Resource, Violation
from embedfleet.resources.documents import Document
from embedfleet.resources.manifest import KINDS
from embedfleet.resources.problems import judge
from embedfleet.resources.rules import (
    Model,
    cache_violations,
    name_violations,
    pool_violations,
    route_violations,
)
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.rendering import Manifest, cluster_violations
from embedfleet_operator.rendering.rayservice import built_dashboard

__all__ = [
    "Judged",
    "fleet_names",
    "fleet_of",
    "judged",
    "judged_fleet",
    "judged_models",
    "judged_routes",
]

R = TypeVar("R", bound=Resource)

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Judged(Generic[R]):
    """A resource and the verdict on it.

    Attributes:
        raw: As read.
        resource: None if it cannot be understood.
        refusal: Why it is not accepted; None if it is.
        advice: What its spec had better say, though it is accepted.
    """

    raw: Manifest
    resource: R | None
    refusal: Refusal | None = None
    advice: str = ""

    @property
    def ref(self) -> str:
        """Such as `Embedder/docs`."""
        return f"{self.raw['kind']}/{self.name}"

    @property
    def name(self) -> str:
        """The resource's name."""
        return str(self.raw["metadata"]["name"])

    @property
    def generation(self) -> int:
        """Counts the changes of its spec."""
        return int(self.raw["metadata"].get("generation") or 0)

    def refused(self, refusal: Refusal) -> Judged[R]:
        """Refuse it, unless it is refused already."""
        return self if self.refusal else replace(self, refusal=refusal)

    def refused_by(self, violations: Iterable[Violation]) -> Judged[R]:
        """Refuse it if any rule does not hold."""
        sentences = [_sentence(each) for each in violations]
        return self.refused(_refusal(sentences)) if sentences else self


def judged(kind: type[R], raw: Manifest) -> Judged[R]:
    """Judge one resource alone."""
    content = {key: value for key, value in raw.items() if key != "status"}
    found = judge(kind, Document("cluster", 1, content))
    if isinstance(found, tuple):
        return Judged(raw, None, _refusal([_sentence(problem) for problem in found]))
    return Judged(raw, found)


def judged_fleet(raw: Manifest, others: Sequence[Manifest]) -> Judged[Fleet]:
    """Judge a fleet, alone and beside the fleets of every namespace."""
    found = judged(Fleet, raw)
    fleet = found.resource
    if fleet is None:
        return found
    found = found.refused_by(cluster_violations(fleet))
    existing = fleet.spec.existing_cluster
    if existing is None:
        return found
    here = _place(existing.dashboard)
    for other in _before(raw, others):
        if _place(_dashboard(other)) == here:
            metadata = other["metadata"]
            return found.refused_by(
                [
                    Violation(
                        "spec.existingCluster.dashboard", existing.dashboard,
                        f"is Fleet {metadata['namespace']}/{metadata['name']}'s: what one puts "
                        "there deletes the other's models", "Give this fleet a cluster of its own.",
                    )
                ]
            )  # fmt: skip
    return found


def _before(raw: Manifest, others: Iterable[Manifest]) -> Iterator[Manifest]:
    """Yield the fleets whose clusters are theirs before a guest's: older guests, and no guests."""
    is_older = True
    for other in _oldest_first(others):
        is_older = is_older and other["metadata"]["uid"] != raw["metadata"]["uid"]
        if is_older or not _is_guest(other):
            yield other


def judged_models(
    fleet: Fleet | None,
    fleets: Sequence[str],
    raws: Iterable[Manifest],
    caches: Mapping[str, ModelCache | None] | None = None,
) -> tuple[Judged[Model], ...]:
    """Judge the models of a fleet, or those of none, oldest first: a name is whose it was first.

    Args:
        fleet: Theirs, as far as it can be understood.
        fleets: Names of all in the namespace, oldest first.
        raws: The models.
        caches: Caches of the namespace by name; None for one that cannot be understood.
    """
    found: list[Judged[Model]] = []
    for raw in _oldest_first(raws):
        kind: type[Any] = KINDS[raw["kind"]]
        each: Judged[Model] = judged(kind, raw)
        model = each.resource
        if model is not None:
            before = [other.resource for other in found if other.resource is not None]
            each = each.refused_by(name_violations(model, before))
            each = each.refused_by(cache_violations(model, caches or {}))
            if fleet is not None:
                each = each.refused_by(pool_violations(model, fleet))
            elif not fleet_of(raw, fleets):
                each = each.refused(_missing_fleet(raw, fleets))
        found.append(replace(each, advice=_advice(raw, fleets)))
    return tuple(found)


def judged_routes(
    fleet: Fleet | None,
    fleets: Sequence[str],
    raws: Iterable[Manifest],
    models: Sequence[Judged[Model]],
) -> tuple[Judged[ModelRoute], ...]:
    """Judge the routes of a fleet against its models."""
    found = []
    served = [model.resource for model in models if model.resource is not None]
    embedders = {each.name: each for each in served if isinstance(each, Embedder)}
    for raw in _oldest_first(raws):
        each = judged(ModelRoute, raw)
        if each.resource is not None:
            kind = str(each.resource.spec.target_kind)
            known = {m.name: None for m in models if m.raw["kind"] == kind}
            names = fleet.name if fleet else None
            mentioned = route_violations(each.resource, names, known, embedders)
            each = each.refused_by([*name_violations(each.resource, served), *mentioned])
            if not known:
                text = f"spec.rules name models, but no {kind} is served: apply one."
                each = each.refused(Refusal(Reason.INVALID, text))
            if not fleet_of(raw, fleets):
                each = each.refused(_missing_fleet(raw, fleets))
        found.append(replace(each, advice=_advice(raw, fleets)))
    return tuple(found)


def fleet_names(fleets: Iterable[Manifest]) -> list[str]:
    """Name the fleets of a namespace that are not on their way out, oldest first."""
    staying = (each for each in fleets if "deletionTimestamp" not in each["metadata"])
    return [each["metadata"]["name"] for each in _oldest_first(staying)]


def fleet_of(raw: Mapping[str, Any], fleets: Sequence[str]) -> str:
    """Tell which of a namespace's fleets a resource belongs to; empty for none of them.

    What names none belongs to the first, which is the oldest: so one more moves nothing.
    """
    said = _said(raw, "spec", "fleet")
    if said is None:
        return next(iter(fleets), "")
    return said if said in fleets else ""


def _advice(raw: Mapping[str, Any], fleets: Sequence[str]) -> str:
    if _said(raw, "spec", "fleet") is not None or len(fleets) < 2:
        return ""
    return (
        f"spec.fleet is missing, and this namespace has {', '.join(sorted(fleets))}: the oldest, "
        f"{fleets[0]}, is taken. Name one."
    )


def _missing_fleet(raw: Mapping[str, Any], fleets: Sequence[str]) -> Refusal:
    known = ", ".join(sorted(fleets)) or "none"
    said = _said(raw, "spec", "fleet")
    if said is None:
        return Refusal(Reason.FLEET_MISSING, "This namespace has no Fleet. Create one.")
    text = f"spec.fleet is {said!r}: no such Fleet in this namespace; it has {known}."
    return Refusal(Reason.FLEET_MISSING, f"{text} Create it, or correct the name.")


def _is_guest(raw: Mapping[str, Any]) -> bool:
    return _said(raw, "spec", "existingCluster", "dashboard") is not None


def _dashboard(raw: Manifest) -> str:
    """Give the address of a fleet's dashboard, which KubeRay builds if it names none."""
    metadata = raw["metadata"]
    said = _said(raw, "spec", "existingCluster", "dashboard")
    return said or built_dashboard(metadata["name"], metadata["namespace"])


def _place(address: str) -> tuple[str, int | None]:
    """Write an address as all that lead to the same place are: host and port.

    A Service is also known with `.svc` and the cluster's domain. A name without a namespace is one
    where the operator runs, and stands for itself.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return address, None
    labels = host.rstrip(".").split(".")
    if labels[2:3] == ["svc"]:
        labels = labels[:2]
    return ".".join(labels), port or _PORTS.get(parts.scheme)


def _said(raw: Any, *path: str) -> str | None:
    """Read a text, however the rest of the resource looks."""
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, str) else None


def _oldest_first(raws: Iterable[Manifest]) -> list[Manifest]:
    def age(raw: Manifest) -> tuple[str, str, str]:
        metadata = raw["metadata"]
        return str(metadata.get("creationTimestamp")), metadata["name"], raw["kind"]

    return sorted(raws, key=age)


def _sentence(problem: Problem | Violation) -> str:
    value = str(problem.value)
    found = f" is {value}" if value else ""
    return f"{problem.path}{found}: {problem.limit}. {problem.remedy}"


def _refusal(sentences: Sequence[str]) -> Refusal:
    return Refusal(Reason.INVALID, " ".join(sentences))
