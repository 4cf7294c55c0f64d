"""Which version of each model last served well, kept in a ConfigMap of the fleet.

A model whose new version must not serve goes on with that one: what a user broke in the spec, or
what does not give the golden outputs, takes no working version down. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from embedfleet.resources.fleet import Fleet
from embedfleet.resources.manifest import KINDS
from embedfleet.resources.rules import Model
from embedfleet_operator.observing.judging import judged
from embedfleet_operator.rendering.manifests import SERVED, Manifest, manifest

__all__ = ["contract_moved", "memory_name", "recalled", "remembered"]


def memory_name(fleet: str) -> str:
    """Name the ConfigMap."""
    return f"{fleet}-served"


def remembered(fleet: Fleet, models: Sequence[Model]) -> Manifest:
    """Write down models as they serve."""
    found = manifest("v1/ConfigMap", fleet, SERVED, memory_name(fleet.name), {})
    del found["spec"]
    data = {f"{each.kind}.{each.name}": _written(each) for each in models}
    return {**found, "data": data}


def recalled(config_map: Manifest | None) -> dict[str, Model]:
    """Read them by resource, such as `Embedder/docs`; what a newer release cannot read is lost."""
    found: dict[str, Model] = {}
    for key, text in ((config_map or {}).get("data") or {}).items():
        kind, _, name = key.partition(".")
        try:
            raw = json.loads(text)
        except ValueError:
            continue
        if kind in ("Embedder", "Reranker") and isinstance(raw, Mapping):
            each: Any = judged(KINDS[kind], {**raw, "kind": kind}).resource
            if each is not None and each.name == name:
                found[f"{kind}/{name}"] = each
    return found


def contract_moved(before: Model, after: Model) -> str:
    """Name the field by which two versions make outputs that do not compare; empty for none."""
    for field in ("source", "revision"):
        if getattr(before.spec, field) != getattr(after.spec, field):
            return f"spec.model.{field}"
    if before.spec.quantization.weights != after.spec.quantization.weights:
        return "spec.quantization.weights"
    return ""


def _written(model: Model) -> str:
    metadata = {
        "name": model.name, "namespace": model.metadata.namespace, "uid": model.metadata.uid,
    }  # fmt: skip
    spec = model.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    whole = {"apiVersion": model.api_version, "metadata": metadata, "spec": spec}
    return json.dumps(whole, sort_keys=True, ensure_ascii=False)
