"""The rights that the operator's chart gives, without the rest of the chart."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from charts import rendered
from control_plane import ControlPlane

__all__ = ["ACCOUNT", "address", "install", "lease_rights"]

ACCOUNT = "embedfleet-operator"
"""The chart's ServiceAccount, in the namespace `system`."""

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADDRESSES = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": _RBAC + "/namespaces/{}/roles",
    "RoleBinding": _RBAC + "/namespaces/{}/rolebindings",
    "ClusterRole": _RBAC + "/clusterroles",
    "ClusterRoleBinding": _RBAC + "/clusterrolebindings",
}


def install(plane: ControlPlane) -> None:
    """Give the chart's account what the chart gives it, in every namespace."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "system"}}
    plane.apply("/api/v1/namespaces/system", namespace)
    for each in _rights():
        plane.apply(f"{address(each)}/{each['metadata']['name']}", each)


def lease_rights(namespace: str) -> list[dict[str, Any]]:
    """Give what lets the chart's account hold a lease in another namespace than the chart's."""
    found = [copy.deepcopy(each) for each in _rights() if each["kind"] in ("Role", "RoleBinding")]
    for each in found:
        each["metadata"]["namespace"] = namespace
    return found


def address(manifest: dict[str, Any]) -> str:
    """Give the address of all objects of a manifest's kind and namespace."""
    return _ADDRESSES[manifest["kind"]].format(manifest["metadata"].get("namespace"))


@cache
def _rights() -> tuple[dict[str, Any], ...]:
    return tuple(each for each in rendered() if each["kind"] in _ADDRESSES)
