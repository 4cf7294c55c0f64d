"""RayServices against KubeRay's own definition: no unknown field, nothing left to its defaults."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from operator_cases import BUILT, TARGET, given, kuberay_crd, only

from embedfleet_operator.rendering import KubeRayFeatures, Manifest, render, unknown_fields
from embedfleet_operator.rendering.definition import spec_schema

Schema = dict[str, Any]


def service_of(case: str) -> Manifest:
    manifests = given(case)
    return only(render(manifests.only_fleet(), manifests.models, TARGET), "RayService")


def defaulted(value: Any, schema: Schema) -> Any:
    """Apply a structural schema's defaults as the API server does."""
    if isinstance(value, list):
        return [defaulted(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    missing = {k: s["default"] for k, s in known.items() if "default" in s and k not in value}
    return {k: defaulted(v, known.get(k, {})) for k, v in {**value, **missing}.items()}


@pytest.mark.parametrize("case", BUILT)
def test_kuberay_knows_every_field_and_takes_every_value(case: str) -> None:
    assert unknown_fields(service_of(case), kuberay_crd()) == ()
    # Not `validate`: that judges the megabyte of schema first.
    validator = Draft202012Validator(spec_schema(kuberay_crd()))
    assert list(validator.iter_errors(service_of(case)["spec"])) == []


@pytest.mark.parametrize("case", BUILT)
def test_defaults_change_nothing_that_was_written(case: str) -> None:
    spec = service_of(case)["spec"]
    assert defaulted(spec, spec_schema(kuberay_crd())) == spec


def definition(groups: Schema) -> Schema:
    """Write the definition of an imagined KubeRay whose worker groups have these fields."""
    group = {"type": "object", "properties": {"groupName": {"type": "string"}, **groups}}
    cluster = {
        "type": "object",
        "properties": {"workerGroupSpecs": {"type": "array", "items": group}},
    }
    spec = {"type": "object", "properties": {"rayClusterConfig": cluster}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"spec": spec}}}}
    return {"spec": {"versions": [{"name": "v1alpha1"}, version]}}


@pytest.mark.parametrize(
    ("group", "known", "expected"),
    [
        ({}, {}, ()),
        ({"priority": 1}, {"priority": {"type": "integer"}}, ()),
        ({"priority": 1}, {}, ("spec.rayClusterConfig.workerGroupSpecs[0].priority",)),
        ({"a": {"b": 1}}, {}, ("spec.rayClusterConfig.workerGroupSpecs[0].a",)),
        (
            {"a": {"b": 1}}, {"a": {"type": "object", "properties": {}}},
            ("spec.rayClusterConfig.workerGroupSpecs[0].a.b",),
        ),
        ({"a": {"b": 1}}, {"a": {"additionalProperties": {"type": "integer"}}}, ()),
        ({"a": {"b": 1}}, {"a": {"x-kubernetes-preserve-unknown-fields": True}}, ()),
        # Such an object keeps nothing.
        (
            {"a": {"b": 1}}, {"a": {"type": "object"}},
            ("spec.rayClusterConfig.workerGroupSpecs[0].a.b",),
        ),
    ],
    ids=["nothing", "has-it", "lacks-it", "whole", "inside", "map", "anything", "bare-object"],
)  # fmt: skip
def test_fields_that_an_installed_kuberay_lacks(
    group: Schema, known: Schema, expected: tuple[str, ...]
) -> None:
    service = {"spec": {"rayClusterConfig": {"workerGroupSpecs": [{"groupName": "a", **group}]}}}
    assert unknown_fields(service, definition(known)) == expected


@pytest.mark.parametrize(
    ("known", "expected"), [({}, False), ({"priority": {"type": "integer"}}, True)]
)
def test_priorities_are_written_where_they_are_known(known: Schema, expected: bool) -> None:
    features = KubeRayFeatures.of_crd(definition(known))
    assert features == KubeRayFeatures(worker_group_priority=expected)


def test_kuberay_1_6_has_no_priorities() -> None:
    assert KubeRayFeatures.of_crd(kuberay_crd()) == KubeRayFeatures(worker_group_priority=False)
