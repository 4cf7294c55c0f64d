"""RayServices against KubeRay's own definition: no unknown field, nothing left to its defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from operator_cases import CASES, TARGET, given, kuberay_crd, kuberay_spec_schema, only

from embedfleet_operator.rendering import KubeRayFeatures, render

Schema = dict[str, Any]


def spec_of(case: str) -> dict[str, Any]:
    manifests = given(case)
    rendered = render(manifests.only_fleet(), manifests.models, TARGET)
    found: dict[str, Any] = only(rendered, "RayService")["spec"]
    return found


def unknown(value: Any, schema: Schema, path: str = "spec") -> Iterator[str]:
    """Yield fields that the API server would refuse from a strict client."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown(item, schema["items"], f"{path}[{index}]")
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in known:
                yield from unknown(item, known[key], f"{path}.{key}")
            elif rest is None and (known or schema.get("type") != "object"):
                yield f"{path}.{key}"


def defaulted(value: Any, schema: Schema) -> Any:
    """Apply a structural schema's defaults as the API server does."""
    if isinstance(value, list):
        return [defaulted(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    missing = {k: s["default"] for k, s in known.items() if "default" in s and k not in value}
    return {k: defaulted(v, known.get(k, {})) for k, v in {**value, **missing}.items()}


@pytest.mark.parametrize("case", CASES)
def test_kuberay_knows_every_field_and_takes_every_value(case: str) -> None:
    schema = kuberay_spec_schema()
    assert list(unknown(spec_of(case), schema)) == []
    # Not `validate`: that judges the megabyte of schema first.
    assert list(Draft202012Validator(schema).iter_errors(spec_of(case))) == []


@pytest.mark.parametrize("case", CASES)
def test_defaults_change_nothing_that_was_written(case: str) -> None:
    assert defaulted(spec_of(case), kuberay_spec_schema()) == spec_of(case)


def test_a_field_that_this_kuberay_lacks_would_be_noticed() -> None:
    spec = spec_of("cpu-only")
    spec["rayClusterConfig"]["workerGroupSpecs"][0]["priority"] = 1
    path = "spec.rayClusterConfig.workerGroupSpecs[0].priority"
    assert list(unknown(spec, kuberay_spec_schema())) == [path]


def test_features_are_read_from_the_installed_definition() -> None:
    crd = copy.deepcopy(kuberay_crd())
    assert KubeRayFeatures.of_crd(crd) == KubeRayFeatures(worker_group_priority=False)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    groups = spec["rayClusterConfig"]["properties"]["workerGroupSpecs"]
    groups["items"]["properties"]["priority"] = {"type": "integer", "format": "int32"}
    assert KubeRayFeatures.of_crd(crd) == KubeRayFeatures(worker_group_priority=True)
