"""Pods of Ray's head and workers: one container each, with the environment Serve's fast path needs.

KubeRay adds what it knows better: the command, probes, /dev/shm, the head's address and the
autoscaler beside the head (KubeRay 1.6, controllers/ray/common/pod.go).
"""

from __future__ import annotations

from typing import Any, Final

from embedfleet.rendering.flags import SERVE_FLAGS
from embedfleet.rendering.serve import ServePorts
from embedfleet.resources.fleet import Fleet, Head
from embedfleet.resources.pool import Pool
from embedfleet_operator.rendering.caching import Mounts
from embedfleet_operator.rendering.manifests import (
    RAY,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    cores,
    memory_gib,
    pod_identity,
    pod_labels,
    port,
)
from embedfleet_operator.rendering.target import Target

__all__ = [
    "DASHBOARD_PORT",
    "GPU",
    "GPU_PRODUCT_LABEL",
    "HAPROXY_METRICS_PORT",
    "METRICS_PORT",
    "OPTIONS_ANNOTATION",
    "SERVE_PORTS",
    "head_template",
    "worker_template",
]

SERVE_PORTS: Final = ServePorts()
DASHBOARD_PORT: Final = 8265
METRICS_PORT: Final = 8080
HAPROXY_METRICS_PORT: Final = 9101

GPU: Final = "nvidia.com/gpu"
GPU_PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
"""Put on nodes by NVIDIA's feature discovery."""

OPTIONS_ANNOTATION: Final = "embedfleet.io/serve-options"

# Names that start with `serve` reach the Service that KubeRay makes, so metrics must not.
_NODE_PORTS: Final = (
    port("serve", SERVE_PORTS.http),
    port("serve-grpc", SERVE_PORTS.grpc),
    port("metrics", METRICS_PORT),
    port("haproxy", HAPROXY_METRICS_PORT),
)
_HEAD_PORTS: Final = (
    port("gcs", 6379),
    port("dashboard", DASHBOARD_PORT),
    port("client", 10001),
)


def head_template(fleet: Fleet, target: Target, options_hash: str) -> dict[str, Any]:
    """Build the head's pod.

    `options_hash` stands for what Serve reads only when it starts: it is part of the pod, so that
    a change makes KubeRay build a new cluster instead of being ignored by the running one.
    """
    template = _template(fleet, target, _head_resources(fleet.spec.head))
    # No ServiceAccount: KubeRay makes one with the autoscaler's rights, unless one is named.
    template["metadata"]["annotations"] = {OPTIONS_ANNOTATION: options_hash}
    template["spec"]["containers"][0].update(
        {"name": "ray-head", "ports": [*_HEAD_PORTS, *_NODE_PORTS]}
    )
    return template


def worker_template(fleet: Fleet, target: Target, pool: Pool, cached: Mounts) -> dict[str, Any]:
    """Build the pod of one node of a pool; `cached` are the models that replicas load from files.

    A pool that selects no nodes itself takes those that carry its accelerator's name.
    """
    template = _template(fleet, target, _pool_resources(pool))
    spec = template["spec"]
    spec["containers"][0].update({"name": "ray-worker", "ports": [*_NODE_PORTS]})
    spec["containers"][0]["volumeMounts"] += cached.mounts
    spec["volumes"] += cached.volumes
    # Only the head's autoscaler calls the API server.
    spec["automountServiceAccountToken"] = False
    spec.update(pod_identity((), fleet.spec.service_account_name))
    selector = dict(pool.node_selector)
    if not selector and pool.accelerator is not None:
        selector = {GPU_PRODUCT_LABEL: pool.accelerator}
    if selector:
        spec["nodeSelector"] = selector
    if pool.tolerations:
        spec["tolerations"] = [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            for each in pool.tolerations
        ]
    return template


def _template(fleet: Fleet, target: Target, resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"labels": pod_labels(fleet, RAY)},
        "spec": {
            # A Service called `ray` would otherwise set variables that Ray reads as its own.
            "enableServiceLinks": False,
            # The autoscaler replaces pods; one restarted in place would join twice.
            "restartPolicy": "Never",
            **pod_identity(fleet.spec.image_pull_secrets),
            "securityContext": RESTRICTED_POD,
            "containers": [
                {
                    "image": fleet.spec.image or target.image,
                    "imagePullPolicy": "IfNotPresent",
                    "env": _environment(fleet),
                    "resources": {"limits": resources, "requests": resources},
                    "securityContext": RESTRICTED_CONTAINER,
                    # HAProxy's files and sockets, and Ray's session.
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def _environment(fleet: Fleet) -> list[dict[str, str]]:
    values = {**SERVE_FLAGS, "RAY_USAGE_STATS_ENABLED": "0"}
    if fleet.spec.auth is None:
        # Left out, a token file inside the image would turn it on. With a Secret, KubeRay sets it.
        values["RAY_AUTH_MODE"] = "disabled"
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _head_resources(head: Head) -> dict[str, str]:
    return {"cpu": cores(head.cpus), "memory": memory_gib(head.memory_gib)}


def _pool_resources(pool: Pool) -> dict[str, str]:
    resources = {
        "cpu": cores(pool.cpus_per_node),
        "memory": memory_gib(pool.memory_gib_per_node),
    }
    return {**resources, GPU: str(pool.gpus_per_node)} if pool.has_gpus else resources
