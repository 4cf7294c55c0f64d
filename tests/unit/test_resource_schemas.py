"""The resources' schemas can become CRDs: everything described, everything bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from embedfleet.resources import Embedder, Fleet, ModelCache, ModelRoute, Reranker
from embedfleet.resources.base import Resource

KINDS = [Fleet, Embedder, Reranker, ModelRoute, ModelCache]
BANNED = {"oneOf", "allOf", "prefixItems", "uniqueItems", "patternProperties", "propertyNames"}


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field under `spec`: where it stands and its schema."""
    parts = schema["$defs"]
    waiting = [("spec", parts[f"{schema['title']}Spec"])]
    while waiting:
        path, part = waiting.pop()
        for name, field in part["properties"].items():
            where = f"{path}.{name}"
            part_of = parts[field["$ref"].split("/")[-1]] if "$ref" in field else {}
            # A field described in the very words of its part is not described again.
            yield where, {"description": part_of.get("description"), **field}
            for each in alternatives(field):
                target = each.get("items", each)
                if "$ref" in target and "properties" in parts[target["$ref"].split("/")[-1]]:
                    waiting.append((where, parts[target["$ref"].split("/")[-1]]))


def alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]


def unbounded(schema: dict[str, Any]) -> str:
    """Say what bound is missing, if any is."""
    match schema.get("type"):
        case "array":
            return unbounded(schema["items"]) if "maxItems" in schema else "maxItems"
        case "object":
            values = schema.get("additionalProperties")
            if "properties" in schema or not values:
                return ""
            return unbounded(values) if "maxProperties" in schema else "maxProperties"
        case "string":
            return "" if {"enum", "const", "maxLength"} & schema.keys() else "maxLength"
        case "integer" | "number":
            return "" if {"minimum", "maximum"} <= schema.keys() else "minimum and maximum"
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_and_bounded(kind: type[Resource]) -> None:
    schema = kind.model_json_schema(by_alias=True)
    seen = dict(fields(schema))
    assert len(seen) > 10
    for path, field in seen.items():
        assert field.get("description"), path
        assert len(alternatives(field)) == 1, f"{path} is of more than one type"
        assert not BANNED & field.keys(), path
        for each in alternatives(field):
            assert not unbounded(each), f"{path} has no {unbounded(each)}"


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_camel_case_outside(kind: type[Resource]) -> None:
    for path, _ in fields(kind.model_json_schema(by_alias=True)):
        assert "_" not in path
