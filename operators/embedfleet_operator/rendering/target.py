"""What rendering must know of the Kubernetes cluster besides the resources themselves.

Found out once by whoever can ask the cluster; rendering stays a function of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedfleet_operator.rendering.definition import spec_schema

__all__ = ["Gateway", "KubeRayFeatures", "Target"]


@dataclass(frozen=True, slots=True)
class KubeRayFeatures:
    """Fields that only some releases of KubeRay have: an unknown field fails the whole apply.

    Attributes:
        worker_group_priority: Worker groups can be preferred over each other (from 1.7).
    """

    worker_group_priority: bool = False

    @classmethod
    def of_crd(cls, crd: Mapping[str, Any]) -> KubeRayFeatures:
        """Read the installed CustomResourceDefinition of RayService."""
        found: Any = spec_schema(crd)
        for step in ("properties", "rayClusterConfig", "properties", "workerGroupSpecs", "items"):
            # A definition of long ago has none of it: the fleet itself is refused then.
            found = found.get(step) or {}
        return cls(worker_group_priority="priority" in found.get("properties", ()))


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where gRPC enters the cluster, where the Gateway API is installed.

    Attributes:
        domain: Each fleet gets `FLEET.NAMESPACE.domain`; empty leaves host names out, which only
            a gateway of one fleet can bear.
    """

    name: str
    namespace: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A Kubernetes cluster as rendering sees it.

    Attributes:
        image: Image of fleets that name none.
        kuberay: What the installed KubeRay can do.
        gateway: None where the Gateway API is not installed or not wanted.
        monitoring: Whether the Prometheus operator's kinds are installed.
        monitoring_namespace: Where Prometheus runs; empty lets every namespace read metrics.
        control_namespaces: Where this operator and KubeRay's run: they read the dashboard.
        cluster_domain: DNS suffix of Services.
        certificates_digest: Of the Secrets that the fleet's TLS names: HAProxy reads them when it
            starts, so renewed ones must replace the edge's pods.
    """

    image: str
    kuberay: KubeRayFeatures = KubeRayFeatures()
    gateway: Gateway | None = None
    monitoring: bool = False
    monitoring_namespace: str = ""
    control_namespaces: tuple[str, ...] = ("embedfleet-system",)
    cluster_domain: str = "cluster.local"
    certificates_digest: str = ""
