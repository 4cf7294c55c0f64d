"""Fleets and models for tests of what the operator decides, and how its decisions are read."""

from __future__ import annotations

from typing import Any

from operator_facts import raw

from embedfleet_operator.deciding.decide import Decision
from embedfleet_operator.rendering import Manifest

__all__ = [
    "BUILT",
    "DOCS",
    "EMBEDDED",
    "GUEST",
    "GUEST_SPEC",
    "applications",
    "at",
    "embedder",
    "message",
    "route",
]

EMBEDDED = {"source": "embedded/embedder"}
BUILT = raw("Fleet", "f", {"pools": [{"name": "cpu", "minNodes": 1}]}, age=40)
GUEST_SPEC = {"existingCluster": {"dashboard": "http://ray:8265", "serveHost": "ray"}}
GUEST = raw("Fleet", "f", GUEST_SPEC, age=40)


def at(dashboard: str, age: int = 40, name: str = "f", namespace: str = "search") -> Manifest:
    """A fleet on a Ray cluster that runs already."""
    spec = {"existingCluster": {"dashboard": dashboard, "serveHost": "ray"}}
    return raw("Fleet", name, spec, age, namespace)


def embedder(name: str, age: int = 0, **spec: Any) -> Manifest:
    """An Embedder of the model that comes with embedfleet."""
    return raw("Embedder", name, {"model": EMBEDDED, **spec}, age)


def route(model: str) -> Manifest:
    """A ModelRoute that leads everything to one Embedder."""
    rules = [{"name": "all", "targets": [{"model": model}]}]
    return raw("ModelRoute", "route", {"targetKind": "Embedder", "rules": rules})


def applications(decision: Decision) -> list[str]:
    """Name the applications that Serve is given."""
    assert decision.config is not None
    return [each["name"] for each in decision.config["applications"]]


def message(decision: Decision, ref: str) -> str:
    """Read what is said of why a resource is accepted, or not."""
    (found,) = (c for c in decision.statuses[ref].conditions or () if c.type == "Accepted")
    return found.message


DOCS = embedder("docs", age=9)
