"""Reading the definition of RayService that is installed: what it lacks of what is rendered.

The API server refuses a whole apply for one field that it does not know, and says so only then.
Structural schemas are trees without references, so a walk beside the value is enough
(apiextensions.k8s.io/v1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["spec_schema", "unknown_fields"]


def spec_schema(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the schema of `spec` in the definition's version `v1`; empty before there was one."""
    for version in crd["spec"]["versions"]:
        if version["name"] == "v1":
            schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            return schema
    return {}


def unknown_fields(service: Mapping[str, Any], crd: Mapping[str, Any]) -> tuple[str, ...]:
    """List the fields of a rendered RayService that the definition does not have.

    Returns:
        Paths such as `spec.rayClusterConfig.authOptions`; the fields under them are not listed.
    """
    return tuple(_unknown(service["spec"], spec_schema(crd), "spec"))


def _unknown(value: object, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema["items"], f"{path}[{index}]")
    if not isinstance(value, Mapping) or "additionalProperties" in schema:
        return
    known = schema.get("properties", {})
    for key, item in value.items():
        if key in known:
            yield from _unknown(item, known[key], f"{path}.{key}")
        else:
            yield f"{path}.{key}"
