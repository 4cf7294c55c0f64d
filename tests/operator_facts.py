"""What an operator knows about a fleet, made from resources as the API server gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from embedfleet.resources import ModelCache
from embedfleet_operator.observing.judging import (
    fleet_names,
    fleet_of,
    judged,
    judged_fleet,
    judged_models,
    judged_routes,
)
from embedfleet_operator.observing.seen import Seen
from embedfleet_operator.rendering import Manifest, Target

__all__ = ["NOW", "TARGET", "WHOLE", "conditions", "known", "raw"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = Target(image="registry.example/embedfleet:0.1.0")
WHOLE: Manifest = {
    "spec": {
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}
                    }
                },
            }
        ]
    }
}
"""A definition of RayService that has every field."""


def raw(kind: str, name: str, spec: Any, age: int = 0, namespace: str = "search") -> Manifest:
    """Give a resource as the API server does; `age` counts how many came after it."""
    return {
        "apiVersion": "embedfleet.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{kind}-{namespace}-{name}",
            "resourceVersion": "7",
            "generation": 3,
            "creationTimestamp": f"2026-01-01T00:00:{50 - age:02}Z",
        },
        "spec": spec,
    }


def known(
    fleet: Manifest,
    resources: Sequence[Manifest] = (),
    others: Sequence[Manifest] = (),
    **more: Any,
) -> Seen:
    """Give what is known about a fleet among resources of its namespace and fleets of all."""
    found = judged_fleet(fleet, [fleet, *others])
    near = [each for each in (fleet, *others) if _namespace(each) == _namespace(fleet)]
    names = fleet_names(near)
    own = [each for each in resources if fleet_of(each, names) == fleet["metadata"]["name"]]
    caches: Mapping[str, ModelCache | None] = {
        each["metadata"]["name"]: judged(ModelCache, each).resource
        for each in resources
        if each["kind"] == "ModelCache"
    }
    kinds = ("Embedder", "Reranker")
    raws = (each for each in own if each["kind"] in kinds)
    models = judged_models(found.resource, names, raws, caches)
    raws = (each for each in own if each["kind"] == "ModelRoute")
    routes = judged_routes(found.resource, names, raws, models)
    facts = {"kuberay": WHOLE, "caches": tuple(each for each in caches.values() if each), **more}
    return Seen(fleet=found, now=NOW, target=TARGET, models=models, routes=routes, **facts)


def conditions(status: Any) -> dict[str, str]:
    """Give the conditions of a status as `TrueReason`, by type."""
    return {each.type: f"{each.status}{each.reason}" for each in status.conditions or ()}


def _namespace(resource: Manifest) -> str:
    found: str = resource["metadata"]["namespace"]
    return found
