"""The definitions in the chart: as the models have them, complete, and in Kubernetes' own form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from embedfleet.resources.base import Part
from embedfleet.resources.manifest import KINDS as PARSED
from embedfleet_operator.crds import KINDS, LISTS, RULES, Kind, definition
from embedfleet_operator.crds.files import files
from embedfleet_operator.crds.fleet_rules import MAX_POOLS
from embedfleet_operator.crds.schema import ListType, Rule, structural

TEMPLATES = Path(__file__).parents[2] / "charts" / "embedfleet-crds" / "templates"
BANNED = {
    "$ref", "$defs", "allOf", "anyOf", "oneOf", "not", "title", "const", "uniqueItems",
    "patternProperties", "prefixItems", "readOnly", "deprecated", "exclusiveMinimum", "id",
}  # fmt: skip
"""What structural schemas refuse, and what the API server would drop in silence."""

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def version(kind: Kind) -> dict[str, Any]:
    return definition(kind)["spec"]["versions"][0]  # type: ignore[no-any-return]


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and all that lie below it."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from fields(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from fields(schema[keyword], f"{path}[]")


def test_the_chart_holds_what_the_models_say() -> None:
    written = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
    assert written == files(), "run python -m embedfleet_operator.crds " + str(TEMPLATES)


def test_every_kind_that_is_parsed_is_defined() -> None:
    assert {kind.name: kind.resource for kind in KINDS} == PARSED


def test_names_are_those_that_users_type() -> None:
    names = {kind.name: definition(kind)["spec"]["names"] for kind in KINDS}
    assert {name: each["shortNames"][0] for name, each in names.items()} == {
        "Fleet": "fleet",
        "Embedder": "emb",
        "Reranker": "rrk",
        "ModelRoute": "mroute",
        "ModelCache": "mcache",
    }
    assert all(each["categories"] == ["embedfleet"] for each in names.values())


@every_kind
def test_uninstalling_the_chart_keeps_the_resources(kind: Kind) -> None:
    read = yaml.safe_load((TEMPLATES / f"{kind.plural}.yaml").read_text())
    assert read["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "{{" not in files()[f"{kind.plural}.yaml"], "Helm would take it for a template's"


@every_kind
def test_every_field_is_described_and_bounded(kind: Kind) -> None:
    schema = version(kind)["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        for path, field in fields(schema[part], part):
            assert not BANNED & field.keys(), path
            assert path.endswith("[]") or field.get("description"), path
            match field["type"]:
                case "array":
                    assert {"maxItems", "x-kubernetes-list-type"} <= field.keys(), path
                case "object" if "properties" not in field:
                    assert "maxProperties" in field, path
                case "string":
                    bounded = {"enum", "maxLength"} & field.keys()
                    assert bounded or field["format"] == "date-time", path
                case "integer" | "number":
                    assert {"minimum", "maximum"} <= field.keys(), path


def test_every_part_with_rules_has_their_twins() -> None:
    def below(part: type[Part]) -> Iterator[type[Part]]:
        for each in part.__subclasses__():
            yield each
            yield from below(each)

    with_rules = {
        each.__name__ for each in below(Part) if "violations" in vars(each) and _in_a_kind(each)
    }
    assert with_rules == set(RULES)


def _in_a_kind(part: type[Part]) -> bool:
    """Settings of commands are parts, too, and no part of a resource."""
    return part.__module__.startswith("embedfleet.resources.")


@every_kind
def test_rules_point_at_fields_that_exist(kind: Kind) -> None:
    for path, schema in fields(version(kind)["schema"]["openAPIV3Schema"]):
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["message"].endswith("."), path
            at = schema
            for step in rule["fieldPath"].removeprefix(".").split("."):
                at = at["properties"][step]


def test_list_types_are_those_of_lists_that_exist() -> None:
    written = [
        field["x-kubernetes-list-type"]
        for kind in KINDS
        for _, field in fields(version(kind)["schema"]["openAPIV3Schema"])
        if field["type"] == "array"
    ]
    # ModelStatus stands in two kinds.
    assert len([each for each in written if each != "atomic"]) == len(LISTS) + 1


def test_circles_are_looked_for_among_as_many_pools_as_there_can_be() -> None:
    pools = version(KINDS[0])["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert pools["pools"]["maxItems"] == MAX_POOLS


@every_kind
def test_models_can_be_scaled_and_the_rest_cannot(kind: Kind) -> None:
    subresources = version(kind)["subresources"]
    assert subresources["status"] == {}
    assert ("scale" in subresources) == (kind.name in ("Embedder", "Reranker"))


class Inner(Part):
    """A part."""

    size: Annotated[int, Field(ge=1, le=9)] = 3
    """How large."""


class Probe(Part):
    """Every form that a field takes."""

    needed: Annotated[str, Field(pattern="^a$", max_length=4)]
    """A text."""
    maybe: Annotated[float, Field(ge=0, le=1)] | None = None
    """A number or none."""
    only: Literal["x"] = "x"
    """A constant."""
    inner: Inner = Inner()
    """A part with defaults."""
    several: Annotated[tuple[Inner, ...], Field(max_length=2)] = ()
    """A list."""
    labels: Annotated[dict[str, str], Field(max_length=3, default_factory=dict)]
    """A mapping."""


def test_each_form_of_a_field_becomes_its_structural_twin() -> None:
    size = {"description": "How large.", "type": "integer", "minimum": 1, "maximum": 9}
    part = {"type": "object", "properties": {"size": {**size, "default": 3}}}
    rule = Rule(".maybe", "true", "is wrong. Correct it.", "self.maybe")
    lists = {("Probe", "several"): ListType("map", "size")}
    assert structural(Probe, {"Probe": (rule,)}, lists) == {
        "description": "Every form that a field takes.",
        "type": "object",
        "required": ["needed"],
        "properties": {
            "needed": {
                "description": "A text.", "type": "string", "pattern": "^a$", "maxLength": 4,
            },
            "maybe": {
                "description": "A number or none.", "type": "number", "minimum": 0, "maximum": 1,
            },
            "only": {
                "description": "A constant.", "type": "string", "enum": ["x"], "default": "x",
            },
            "inner": {**part, "description": "A part with defaults.", "default": {"size": 3}},
            "several": {
                "description": "A list.",
                "type": "array",
                "items": {**part, "description": "A part."},
                "maxItems": 2,
                "default": [],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["size"],
            },
            "labels": {
                "description": "A mapping.",
                "type": "object",
                "additionalProperties": {"type": "string"},
                "maxProperties": 3,
                "default": {},
            },
        },
        "x-kubernetes-validations": [
            {
                "rule": "true", "message": "is wrong. Correct it.", "fieldPath": ".maybe",
                "messageExpression": '"%s: is wrong. Correct it.".format([self.maybe])',
            }
        ],
    }  # fmt: skip


def test_a_keyword_without_meaning_is_refused_not_dropped() -> None:
    class Odd(Part):
        """A part."""

        number: Annotated[int, Field(multiple_of=2)]
        """An even number."""

    with pytest.raises(ValueError, match="multipleOf"):
        structural(Odd, {}, {})
