"""What must hold between resources: references, names that clients use, pools.

Judges parsed resources only. A resource that could not be parsed still counts as known by name, so
that its own errors do not cause others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from embedfleet.resources.base import Violation
from embedfleet.resources.embedder import Embedder
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.reranker import Reranker

__all__ = ["RESERVED_NAMES", "Model", "fleet_violations", "name_violations", "pool_violations"]

Model = Embedder | Reranker

RESERVED_NAMES: Final = frozenset({"router"})


def fleet_violations(model: Model, fleets: Sequence[str]) -> Iterator[Violation]:
    """Judge a model's reference to its fleet.

    `fleets` are the names of all that were given; if none was, the reference is resolved where the
    model is applied.
    """
    name = model.spec.fleet
    if not fleets:
        return
    if name is None and len(fleets) > 1:
        yield Violation(
            "spec.fleet", "missing", f"{len(fleets)} fleets are given: {', '.join(fleets)}",
            "Say which one serves this model.",
        )  # fmt: skip
    if name is not None and name not in fleets:
        yield Violation(
            "spec.fleet", name, f"is not a fleet that is given; known: {', '.join(fleets)}",
            "Correct the name, or add the Fleet.",
        )  # fmt: skip


def pool_violations(model: Model, fleet: Fleet) -> Iterator[Violation]:
    """Judge a model's placement against the pools of its fleet."""
    placement = model.spec.placement
    by_name = {pool.name: pool for pool in fleet.spec.pools}
    known = ", ".join(by_name) or "none, so leave pools out"
    for index, name in enumerate(placement.pools):
        if name not in by_name:
            yield Violation(
                f"spec.placement.pools[{index}]", name,
                f"is not a pool of Fleet/{fleet.name}; known: {known}",
                "Correct the name, or add the pool to the Fleet.",
            )  # fmt: skip
    pools = [by_name[name] for name in placement.pools if name in by_name] or fleet.spec.pools[:1]
    if len({pool.has_gpus for pool in pools}) > 1:
        yield Violation(
            "spec.placement.pools", list(placement.pools), "mixes GPU and CPU pools",
            "Name pools of one kind: their replicas need different resources.",
        )  # fmt: skip
    elif pools and placement.gpu_fraction is not None and not pools[0].has_gpus:
        yield Violation(
            "spec.placement.gpuFraction", placement.gpu_fraction,
            f"pool {pools[0].name} has no GPUs", "Leave it out, or name a GPU pool.",
        )  # fmt: skip


def name_violations(model: Model, others: Iterable[Model]) -> Iterator[Violation]:
    """Judge a model's name and aliases against those of the fleet's models that come before it."""
    taken: dict[str, str] = {}
    for other in others:
        for name in (other.name, *other.spec.aliases):
            taken.setdefault(name, f"{other.kind}/{other.name}")
    yield from _name("metadata.name", model.name, taken)
    own: Mapping[str, str] = {model.name: "this model's own name"}
    for index, alias in enumerate(model.spec.aliases):
        path = f"spec.aliases[{index}]"
        yield from _name(path, alias, {**taken, **own})
        if alias in model.spec.aliases[:index]:
            yield Violation(path, alias, "is listed twice", "Remove one of the two.")


def _name(path: str, name: str, taken: Mapping[str, str]) -> Iterator[Violation]:
    if name in RESERVED_NAMES:
        yield Violation(path, name, "is reserved for the fleet's own application", "Rename it.")
    elif name in taken:
        yield Violation(
            path, name, f"is taken by {taken[name]}: clients could not tell them apart",
            "Choose another name.",
        )  # fmt: skip
