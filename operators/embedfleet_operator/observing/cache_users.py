"""Who serves from a cache: it is held until nobody does, since workers mount its volume. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from embedfleet_operator.rendering import Manifest
from embedfleet_operator.rendering.manifests import COMPONENT_LABEL, SERVED

__all__ = ["FINALIZER", "cache_of", "cache_users", "is_there"]

FINALIZER: Final = "embedfleet.io/in-use"
"""Holds a cache until no model serves from it."""


def is_there(cache: Manifest) -> bool:
    """Whether a cache can be served from: one that is deleted can while it is held."""
    metadata = cache["metadata"]
    return "deletionTimestamp" not in metadata or FINALIZER in (metadata.get("finalizers") or ())


def cache_of(model: Any) -> str | None:
    """Read which cache a model names, however the rest of it looks."""
    for key in ("spec", "model", "cache"):
        model = model.get(key) if isinstance(model, Mapping) else None
    return model if isinstance(model, str) else None


def cache_users(
    name: str, models: Iterable[Manifest], config_maps: Iterable[Manifest]
) -> tuple[str, ...]:
    """List the models that name a cache, such as `Embedder/docs`.

    Args:
        name: The cache's.
        models: Of its namespace.
        config_maps: Likewise. Those in which fleets remember what served last count: a model whose
            new version names another cache goes on with the old one until that is up.
    """
    there = (each for each in models if "deletionTimestamp" not in each["metadata"])
    named = ((f"{each['kind']}/{each['metadata']['name']}", each) for each in there)
    every = (*named, *(found for each in config_maps for found in _served(each)))
    return tuple(sorted({ref for ref, model in every if cache_of(model) == name}))


def _served(config_map: Manifest) -> Iterator[tuple[str, Any]]:
    if (config_map["metadata"].get("labels") or {}).get(COMPONENT_LABEL) != SERVED:
        return
    for key, text in (config_map.get("data") or {}).items():
        try:
            yield key.replace(".", "/", 1), json.loads(text)
        except ValueError:
            continue
