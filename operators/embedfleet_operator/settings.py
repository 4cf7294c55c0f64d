"""What an operator is told when it starts: by flags, and by the pod for what only it knows."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import embedfleet
from embedfleet_operator.rendering import Gateway

__all__ = ["IMAGE", "Settings", "own_identity", "own_namespace"]

IMAGE: Final = f"embedfleet:{embedfleet.__version__}"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Settings:
    """How an operator runs.

    Attributes:
        namespaces: Those it looks after; none means all.
        image: Image of fleets that name none.
        gateway: Where gRPC enters the cluster; None makes no routes.
        monitoring_namespace: Where Prometheus runs; empty lets every namespace read metrics.
        kuberay_namespace: Where KubeRay runs; empty lets every namespace read dashboards.
        kubeconfig: File with credentials; empty for those of the pod.
        num_workers: Fleets reconciled at once.
    """

    namespaces: tuple[str, ...] = ()
    lease_namespace: str = ""
    lease_name: str = "embedfleet-operator"
    identity: str = ""
    image: str = IMAGE
    cluster_domain: str = "cluster.local"
    gateway: Gateway | None = None
    monitoring_namespace: str = ""
    kuberay_namespace: str = ""
    metrics_port: int = 8080
    health_port: int = 8081
    resync_seconds: float = 300.0
    kubeconfig: str = ""
    num_workers: int = 8


def own_namespace() -> str:
    """Tell the namespace of this pod; empty outside of one."""
    said = os.environ.get("POD_NAMESPACE", "")
    if not said and _NAMESPACE_FILE.exists():
        return _NAMESPACE_FILE.read_text().strip()
    return said


def own_identity() -> str:
    """Name this process as no other: the pod's name, or the host's and the process id."""
    return os.environ.get("POD_NAME", "") or f"{socket.gethostname()}-{os.getpid()}"
