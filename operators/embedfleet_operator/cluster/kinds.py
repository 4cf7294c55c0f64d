"""The kinds that the operator touches, and how each is watched.

Only what carries this operator's labels is listed, so that a busy cluster's other objects cost
neither memory nor traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedfleet.resources.base import API_VERSION
from embedfleet_operator.rendering.manifests import COMPONENT_LABEL, MANAGED_BY

__all__ = ["CUSTOM", "OWNED", "WATCHED", "Kind", "kind_of"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Attributes:
        api_version: Such as `apps/v1`.
        plural: In addresses, such as `deployments`.
        selector: Labels that limit what is watched.
        optional: Whether the cluster may lack the kind.
    """

    api_version: str
    name: str
    plural: str
    selector: str = ""
    optional: bool = False

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Give the address of an object, or of all in a namespace, or of all."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


_MANAGED: Final = "{}={}".format(*MANAGED_BY)

CUSTOM: Final = tuple(
    Kind(API_VERSION, name, f"{name.lower()}s")
    for name in ("Fleet", "Embedder", "Reranker", "ModelRoute", "ModelCache")
)

OWNED: Final = (
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", _MANAGED),
    Kind("v1", "ConfigMap", "configmaps", _MANAGED),
    Kind("v1", "Service", "services", _MANAGED),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", _MANAGED),
    Kind("apps/v1", "Deployment", "deployments", _MANAGED),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", _MANAGED),
    Kind("batch/v1", "Job", "jobs", _MANAGED),
    Kind("ray.io/v1", "RayService", "rayservices", _MANAGED, optional=True),
    Kind("gateway.networking.k8s.io/v1", "GRPCRoute", "grpcroutes", _MANAGED, optional=True),
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", _MANAGED, optional=True),
)
"""What is written, and taken away again when nobody wants it."""

WATCHED: Final = (
    *CUSTOM,
    *OWNED,
    # KubeRay's, so without this operator's labels.
    Kind("ray.io/v1", "RayCluster", "rayclusters", "ray.io/originated-from-crd=RayService", True),
    Kind("v1", "Pod", "pods", COMPONENT_LABEL),
)

_OTHERS: Final = (
    Kind("v1", "Secret", "secrets"),
    Kind("coordination.k8s.io/v1", "Lease", "leases"),
    Kind("events.k8s.io/v1", "Event", "events"),
    Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
)

_BY_NAME: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*WATCHED, *_OTHERS)}


def kind_of(manifest: Mapping[str, Any] | str) -> Kind:
    """Find the kind of a manifest, or the one of a name such as `Secret`."""
    name = manifest if isinstance(manifest, str) else manifest["kind"]
    return _BY_NAME[name]
