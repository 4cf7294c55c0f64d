"""What must hold between resources: references, names that clients use, pools.

Judges parsed resources only. A resource that could not be parsed still counts as known by name, so
that its own errors do not cause others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from embedfleet.resources.base import RESERVED_NAMES, Violation
from embedfleet.resources.embedder import Embedder
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.reranker import Reranker

__all__ = ["Model", "fleet_violations", "name_violations", "pool_violations"]

Model = Embedder | Reranker


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
    taken = {
        name: f"{other.kind}/{other.name}"
        for other in others
        for name in (other.name, *other.spec.aliases)
    }
    if model.name in RESERVED_NAMES:
        yield Violation(
            "metadata.name", model.name, "is reserved for the fleet itself", "Choose another."
        )
    if model.name in taken:
        yield _taken("metadata.name", model.name, taken[model.name])
    for index, alias in enumerate(model.spec.aliases):
        path = f"spec.aliases[{index}]"
        if alias == model.name:
            yield Violation(path, alias, "is this model's own name", "Leave it out.")
        elif alias in taken:
            yield _taken(path, alias, taken[alias])


def _taken(path: str, name: str, by: str) -> Violation:
    return Violation(
        path, name, f"is taken by {by}: clients could not tell them apart", "Choose another."
    )
