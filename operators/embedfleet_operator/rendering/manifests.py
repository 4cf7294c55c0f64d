"""What every manifest of a fleet shares: its head, its labels, quantities and text.

Values are written as the API server and KubeRay write them back, defaults and canonical quantities
included: what was applied and what is read later then differ only where somebody changed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import yaml

from embedfleet.resources.fleet import Fleet
from embedfleet_operator.text import Dumper

__all__ = [
    "CACHE_LABEL",
    "COMPONENT_LABEL",
    "EDGE",
    "FLEET_LABEL",
    "MANAGED_BY",
    "RAY",
    "RESTRICTED_CONTAINER",
    "RESTRICTED_POD",
    "SERVED",
    "Manifest",
    "cores",
    "manifest",
    "memory_gib",
    "namespace_of",
    "pod_identity",
    "pod_labels",
    "port",
    "to_yaml",
]

Manifest = dict[str, Any]

MANAGED_BY: Final = ("app.kubernetes.io/managed-by", "embedfleet-operator")
FLEET_LABEL: Final = "embedfleet.io/fleet"
CACHE_LABEL: Final = "embedfleet.io/cache"
COMPONENT_LABEL: Final = "embedfleet.io/component"
EDGE: Final = "edge"
RAY: Final = "ray"
SERVED: Final = "served"

RESTRICTED_POD: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""With `RESTRICTED_CONTAINER`, what the Pod Security standard `restricted` asks for."""

RESTRICTED_CONTAINER: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def namespace_of(fleet: Fleet) -> str:
    """Give the namespace of everything that belongs to a fleet."""
    return fleet.metadata.namespace or "default"


def pod_labels(fleet: Fleet, component: str) -> dict[str, str]:
    """Label a fleet's pods; also what selects them."""
    return {FLEET_LABEL: fleet.name, COMPONENT_LABEL: component}


def pod_identity(
    image_pull_secrets: Sequence[str], service_account_name: str | None = None
) -> dict[str, Any]:
    """Say how a pod's images are pulled and as whom it runs: nothing where nothing is asked for."""
    found: dict[str, Any] = {}
    if image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in image_pull_secrets]
    if service_account_name is not None:
        found["serviceAccountName"] = service_account_name
    return found


def manifest(api: str, fleet: Fleet, component: str, name: str, spec: dict[str, Any]) -> Manifest:
    """Build a manifest from `api`, such as `apps/v1/Deployment`, and its spec."""
    api_version, _, kind = api.rpartition("/")
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace_of(fleet),
            "labels": {
                "app.kubernetes.io/name": "embedfleet",
                "app.kubernetes.io/instance": fleet.name,
                **dict((MANAGED_BY,)),
                **pod_labels(fleet, component),
            },
        },
        "spec": spec,
    }


def port(name: str, number: int) -> dict[str, Any]:
    """Name a container's port."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def cores(count: int) -> str:
    """Write CPU cores as Kubernetes writes them back: 2000 is `2k`."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def memory_gib(count: int) -> str:
    """Write GiB as Kubernetes writes them back: 2048 is `2Ti`."""
    return f"{count // 1024}Ti" if count % 1024 == 0 else f"{count}Gi"


def to_yaml(manifests: tuple[Manifest, ...]) -> str:
    """Write manifests as one YAML stream with sorted keys: equal values, equal bytes."""
    return yaml.dump_all(manifests, Dumper=Dumper, sort_keys=True, allow_unicode=True, width=100)
