"""A pydantic model into the structural OpenAPI schema that Kubernetes takes.

References are written out, a value or null becomes a value that may be left out, and every list
says how its entries are told apart. A keyword without a known meaning is an error, so that no
bound is lost in silence. Source: structural schemas in the Kubernetes API documentation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

__all__ = [
    "ListType",
    "Rule",
    "Schema",
    "keys",
    "structural",
    "unique",
    "validations",
    "written_out",
]

Schema = dict[str, Any]

_SCALARS: Final = (
    "type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "format",
)  # fmt: skip
_REFERENCE: Final = "#/$defs/"


@dataclass(frozen=True, slots=True)
class Rule:
    """What crosses fields, as CEL says it.

    Attributes:
        path: Field to point at, relative to the part that states the rule, such as `.maxNodes`.
        cel: Expression that must be true; `self` is the part.
        message: What is allowed and what to do; the API server names the field itself.
        value: Expression of what was found; empty where there is nothing to show.
    """

    path: str
    cel: str
    message: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class ListType:
    """How a list is merged: a set of scalars, a map by key, or as a whole (atomic)."""

    name: str
    key: str = ""


def structural(
    model: type[BaseModel],
    rules: Mapping[str, Sequence[Rule]],
    lists: Mapping[tuple[str, str], ListType],
) -> Schema:
    """Convert a model.

    Args:
        model: The model; its fields' names outside are the schema's.
        rules: Rules by the name of the class that states them.
        lists: Types of lists by class and field; all others are atomic.
    """
    schema = model.model_json_schema(by_alias=True)
    return _Converter(schema.get("$defs", {}), rules, lists).part(schema)


@dataclass(frozen=True, slots=True)
class _Converter:
    definitions: Mapping[str, Schema]
    rules: Mapping[str, Sequence[Rule]]
    lists: Mapping[tuple[str, str], ListType]

    def part(self, schema: Schema) -> Schema:
        """Convert a class with fields."""
        name = schema["title"]
        required = schema.get("required", [])
        properties = {}
        for field, inner in schema["properties"].items():
            converted = self.value(inner, self.lists.get((name, field)))
            if field not in required and converted["type"] == "object" and "default" not in inner:
                converted["default"] = {}  # what a default_factory gives
            properties[field] = converted
        out: Schema = {"description": _text(schema["description"]), "type": "object"}
        if required:
            out["required"] = sorted(required)
        out["properties"] = properties
        if rules := self.rules.get(name):
            out["x-kubernetes-validations"] = validations(rules)
        return out

    def value(self, schema: Schema, list_type: ListType | None) -> Schema:
        """Convert what a field or an entry holds."""
        known = {"title", "description", "default", "anyOf", "const", "$ref"}
        outer = {key: value for key, value in schema.items() if key in ("description", "default")}
        inner = {key: value for key, value in schema.items() if key not in outer}
        if "anyOf" in inner:
            given = [each for each in inner["anyOf"] if each != {"type": "null"}]
            if len(given) != 1:
                raise ValueError(f"{schema} is of {len(given)} types: a field has one")
            inner = given[0]
        if "$ref" in inner:
            inner = self.definitions[inner["$ref"].removeprefix(_REFERENCE)]
        if "const" in inner:
            inner = {**inner, "enum": [inner["const"]]}
        out: Schema = {}
        if text := outer.get("description", inner.get("description")):
            out["description"] = _text(text)
        match inner.get("type"):
            case "object" if "properties" in inner:
                out = self.part(inner) | out
            case "object":
                out |= self._map(inner)
            case "array":
                out |= self._list(inner, list_type or ListType("atomic"))
            case _:
                out |= {key: inner[key] for key in _SCALARS if key in inner}
                if unknown := inner.keys() - {*_SCALARS, *known}:
                    raise ValueError(f"{sorted(unknown)} of {schema} mean nothing in a CRD")
        if outer.get("default") is not None:
            out["default"] = _default(out, outer["default"])
        return out

    def _map(self, schema: Schema) -> Schema:
        return {
            "type": "object",
            "additionalProperties": self.value(schema["additionalProperties"], None),
            "maxProperties": schema["maxProperties"],
        }

    def _list(self, schema: Schema, list_type: ListType) -> Schema:
        out: Schema = {"type": "array", "items": self.value(schema["items"], None)}
        out |= {key: schema[key] for key in ("minItems", "maxItems") if key in schema}
        out["x-kubernetes-list-type"] = list_type.name
        if list_type.key:
            out["x-kubernetes-list-map-keys"] = [list_type.key]
        return out


def written_out(schema: Schema) -> Schema:
    """Give a part's default: its fields' own, since rules judge it before those are put in."""
    fields = schema["properties"].items()
    return {name: copy.deepcopy(field["default"]) for name, field in fields if "default" in field}


def _default(schema: Schema, default: Any) -> Any:
    if "properties" not in schema:
        return default
    whole = written_out(schema)
    if differing := {
        k: v for k, v in default.items() if v is not None and _bare(v) != whole.get(k)
    }:
        raise ValueError(f"default {differing} differs from the fields' own, {whole}")
    return whole


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if each is not None}
    return value


def _text(description: str) -> str:
    return " ".join(description.split())


def validations(rules: Iterable[Rule]) -> list[Schema]:
    """Write rules as a schema holds them."""
    return [
        {"rule": rule.cel, "message": rule.message, "fieldPath": rule.path}
        | ({"messageExpression": _with_value(rule)} if rule.value else {})
        for rule in rules
    ]


def _with_value(rule: Rule) -> str:
    if '"' in rule.message:
        raise ValueError(f"{rule.message!r} has a quote, which would end its text in CEL")
    return f'"%s: {rule.message}".format([{rule.value}])'


def keys(field: str, pattern: str) -> str:
    """Say in CEL what a mapping's keys look like, which a schema cannot."""
    return f"self.{field}.all(k, size(k) <= 253 && k.matches(r'{pattern}'))"


def unique(items: str, key: str = "") -> str:
    """Say in CEL that no two entries are equal, or no two of their fields such as `.name`."""
    return f"{items}.all(a, {items}.exists_one(b, b{key} == a{key}))"
