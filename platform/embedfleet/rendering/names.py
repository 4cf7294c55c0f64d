"""Under which names clients and Serve know each model of a fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from embedfleet.messages import Role
from embedfleet.resources.base import ROUTER
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.model_source import is_local
from embedfleet.resources.rules import Model

__all__ = ["PREFIXES", "ROUTER", "Model", "aliases", "application", "full_name", "role"]

PREFIXES: Final = {Role.EMBEDDER: "emb", Role.RERANKER: "rrk"}
"""What the name of a model's application starts with."""


def role(model: Model) -> Role:
    """Tell what a model is served as."""
    return model.spec.role


def full_name(fleet: Fleet) -> str:
    """Name a fleet among those of all namespaces, such as `search/guest`; a laptop has none."""
    namespace = fleet.metadata.namespace
    return f"{namespace}/{fleet.name}" if namespace else fleet.name


def application(model: Model) -> str:
    """Give the name of a model's Serve application, such as `emb-docs`."""
    return f"{PREFIXES[role(model)]}-{model.name}"


def aliases(models: Sequence[Model]) -> dict[str, tuple[str, ...]]:
    """List each model's names besides its own: those it declares, and its hub name.

    A hub name that several models share, or that is declared as another's alias, is nobody's:
    which of them is meant must be said.

    Returns:
        By application.
    """
    taken = {name for model in models for name in (model.name, *model.spec.aliases)}
    sources = {application(m): m.spec.source for m in models}
    shared = Counter(sources.values())
    found: dict[str, tuple[str, ...]] = {}
    for model in models:
        source = sources[application(model)]
        own = source not in taken and shared[source] == 1 and not is_local(source)
        found[application(model)] = (*model.spec.aliases, *((source,) if own else ()))
    return found
