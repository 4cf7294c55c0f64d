"""What must hold between resources: references, names that clients use, pools, vector spaces.

Judges parsed resources only. A resource that could not be parsed still counts as known by name, so
that its own errors do not cause others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from embedfleet.catalog import published
from embedfleet.resources.base import RESERVED_NAMES, Violation
from embedfleet.resources.embedder import Embedder
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.model_cache import ModelCache
from embedfleet.resources.model_route import ModelRoute
from embedfleet.resources.model_source import is_local
from embedfleet.resources.pool import Pool
from embedfleet.resources.reranker import Reranker
from embedfleet.resources.shared import Weights

__all__ = [
    "Model",
    "Served",
    "cache_violations",
    "fleet_violations",
    "name_violations",
    "pool_violations",
    "route_violations",
]

Model = Embedder | Reranker
"""What a fleet runs replicas of."""

Served = Model | ModelRoute
"""What clients can name in a request."""


def fleet_violations(model: Served, fleets: Sequence[str]) -> Iterator[Violation]:
    """Judge a reference to the fleet that serves a model or a route.

    `fleets` are the names of all that were given; if none was, the reference is resolved where the
    model is applied.
    """
    name = model.spec.fleet
    if not fleets:
        return
    if name is None and len(fleets) > 1:
        yield Violation(
            "spec.fleet", "missing", f"{len(fleets)} fleets are given: {', '.join(fleets)}",
            f"Say which one serves this {model.kind}.",
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
    chain = {name: None for pool in pools for name in fleet.spec.chain(pool.name)}
    for pool in (by_name[name] for name in chain):
        yield from _number_type(model, pool)


def _number_type(model: Model, pool: Pool) -> Iterator[Violation]:
    """Judge the type of the weights against what a pool's processors compute in."""
    weights = model.spec.quantization.weights
    if weights is Weights.BFLOAT16 and not pool.computes_bfloat16:
        yield Violation(
            "spec.quantization.weights", str(weights),
            f"pool {pool.name} has {pool.accelerator} GPUs, which do not compute in it: that "
            "needs compute capability 8.0 or newer",
            "Use float16 or float32, or name another pool.",
        )  # fmt: skip
    elif weights is Weights.FLOAT16 and not pool.has_gpus:
        yield Violation(
            "spec.quantization.weights", str(weights),
            f"pool {pool.name} has no GPUs, and CPUs are neither fast nor exact in it",
            "Use float32, or bfloat16 where the CPUs have AMX or AVX512-BF16.",
        )  # fmt: skip


def cache_violations(model: Model, caches: Mapping[str, ModelCache | None]) -> Iterator[Violation]:
    """Judge a reference to a cache, and whether it holds the model that is named.

    `caches` are all there are by name; None for one that says nothing of its files.
    """
    name, path = model.spec.model.cache, "spec.model.cache"
    if name is None:
        return
    if name not in caches:
        yield Violation(
            path, name, f"is no ModelCache that is given; known: {', '.join(caches) or 'none'}",
            "Correct the name, or add the ModelCache.",
        )  # fmt: skip
        return
    cache = caches[name]
    if cache is None or cache.spec.source.hub is None:
        return
    known = published(cache.spec.source.hub.name)
    held = known.source if known else cache.spec.source.hub.name
    if is_local(model.spec.source):
        if known is not None and known.role is not model.spec.role:
            yield Violation(
                path, name, f"holds {held}, a published {known.role}",
                f"Declare the model as kind {known.role.capitalize()}, or name another cache.",
            )  # fmt: skip
    elif held.lower() != model.spec.source.lower():
        yield Violation(
            path, name, f"holds {held}, but the model is {model.spec.source}",
            "Name the cache of that source, or leave the source out to serve what is cached.",
        )  # fmt: skip
    elif cache.spec.commit != model.spec.revision:
        yield Violation(
            path, name, f"holds commit {cache.spec.commit}, but the model is {model.spec.revision}",
            "Name a cache of that commit, or correct one of the two revisions.",
        )  # fmt: skip


def route_violations(
    route: ModelRoute,
    fleet: str | None,
    known: Mapping[str, str | None],
    embedders: Mapping[str, Embedder],
) -> Iterator[Violation]:
    """Judge a route's references to models, and whether their vectors compare.

    `fleet` is what answers to the route, and `known` maps each given name of the route's kind to
    the fleet that serves it; None where that is not known here. Where no model of the kind is
    given, names are resolved on being applied.
    """
    mentions = [
        (f"spec.rules[{index}].{field}", name)
        for index, rule in enumerate(route.spec.rules)
        for field, name in rule.mentions()
    ]
    kind = route.spec.target_kind
    for path, name in mentions:
        if known and name not in known:
            yield Violation(
                path, name, f"is no {kind} that is given; known: {', '.join(known)}",
                f"Correct the name, or add the {kind}.",
            )  # fmt: skip
        elif None not in (fleet, known.get(name)) and known[name] != fleet:
            yield Violation(
                path, name, f"is served by Fleet/{known[name]}, this route by Fleet/{fleet}",
                "Name a model of the same fleet.",
            )  # fmt: skip
    if not route.spec.mixed_contracts:
        yield from _mixed(mentions, embedders)


def _mixed(
    mentions: Iterable[tuple[str, str]], embedders: Mapping[str, Embedder]
) -> Iterator[Violation]:
    """Judge targets against the first whose vector space is known; shadows answer nobody."""
    first: tuple[str, tuple[str, str]] | None = None
    for path, name in mentions:
        space = _space(embedders[name]) if ".targets[" in path and name in embedders else None
        if space is None:
            continue
        first = first or (name, space)
        if space != first[1]:
            yield Violation(
                path, name, f"makes other vectors than {first[0]}: the two do not compare",
                "Name models of one checkpoint, or set mixedContracts: true.",
            )  # fmt: skip


def _space(embedder: Embedder) -> tuple[str, str] | None:
    """Give what is known of a vector space without its files; None where only digests tell."""
    spec = embedder.spec
    return None if is_local(spec.source) else (spec.source, spec.revision)


def name_violations(model: Served, others: Iterable[Served]) -> Iterator[Violation]:
    """Judge a name and its aliases against those of what the fleet serves that come before it."""
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
            yield Violation(path, alias, "is its own name", "Leave it out.")
        elif alias in taken:
            yield _taken(path, alias, taken[alias])


def _taken(path: str, name: str, by: str) -> Violation:
    return Violation(
        path, name, f"is taken by {by}: clients could not tell them apart", "Choose another."
    )
