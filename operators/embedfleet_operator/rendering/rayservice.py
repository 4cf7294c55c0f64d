"""A fleet's cluster as KubeRay's RayService: Serve's configuration, a head, a worker group a pool.

KubeRay compares all of `rayClusterConfig` but the bounds and tolerations of its groups, and builds
a second cluster when anything differs, so nothing here may move without a cause (KubeRay 1.6,
controllers/ray/utils/util.go:GenerateHashWithoutReplicasAndWorkersToDelete).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from embedfleet.golden import Golden
from embedfleet.rendering.names import Model
from embedfleet.rendering.serve import (
    POOL_LABEL,
    ServeConfig,
    ServePorts,
    render_serve,
    to_yaml,
)
from embedfleet.resources.fleet import Fleet, FleetSpec
from embedfleet.resources.model_cache import ModelCache
from embedfleet.resources.pool import Pool
from embedfleet_operator.rendering.caching import mounts
from embedfleet_operator.rendering.manifests import (
    RAY,
    RESTRICTED_CONTAINER,
    Manifest,
    manifest,
    namespace_of,
)
from embedfleet_operator.rendering.ray_pods import (
    DASHBOARD_PORT,
    SERVE_PORTS,
    head_template,
    worker_template,
)
from embedfleet_operator.rendering.target import Target

__all__ = [
    "API",
    "built_dashboard",
    "dashboard_address",
    "rayservice",
    "serve_address",
    "serve_config",
    "told_config",
]

API: Final = "ray.io/v1/RayService"

_AUTOSCALER_RESOURCES: Final = {"cpu": "500m", "memory": "512Mi"}
_IDLE_SECONDS: Final = 60
_HIGHEST_PRIORITY: Final = 100
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def rayservice(
    fleet: Fleet,
    models: Sequence[Model],
    target: Target,
    goldens: Mapping[str, Golden],
    caches: Sequence[ModelCache],
) -> Manifest:
    """Build the RayService of a fleet; `goldens` by application, `caches` of its namespace."""
    config = serve_config(fleet, models, goldens)
    cached = mounts(models, caches)
    spec = {
        "serveConfigV2": to_yaml(config),
        "upgradeStrategy": {"type": "NewCluster"},
        "serveService": _serve_service(),
        "rayClusterConfig": {
            "rayVersion": fleet.spec.ray_version,
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": _autoscaler(),
            "headGroupSpec": {
                "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
                "template": head_template(fleet, target, _options_hash(config)),
            },
            "workerGroupSpecs": [
                _group(pool, index, worker_template(fleet, target, pool, cached), target)
                for index, pool in enumerate(fleet.spec.pools)
            ],
            **_shared_state(fleet.spec),
        },
    }
    return manifest(API, fleet, RAY, fleet.name, spec)


def serve_config(
    fleet: Fleet, models: Sequence[Model], goldens: Mapping[str, Golden]
) -> ServeConfig:
    """Render what Serve is to run; `goldens` by application."""
    existing = fleet.spec.existing_cluster
    ports = SERVE_PORTS
    if existing is not None:
        ports = ServePorts(grpc=existing.serve_grpc_port, http=existing.serve_http_port)
    return render_serve(fleet, models, ports, goldens)


def told_config(service: Mapping[str, Any]) -> ServeConfig | None:
    """Read back what a RayService has told Serve; None of an empty one."""
    if not service:
        return None
    config: ServeConfig = yaml.load(service["spec"]["serveConfigV2"], Loader=_LOADER)
    return config


def serve_address(fleet: Fleet, target: Target) -> tuple[str, int]:
    """Give host and gRPC port behind which the active cluster's proxies are found."""
    existing = fleet.spec.existing_cluster
    if existing is not None:
        return existing.serve_host, existing.serve_grpc_port
    host = f"{fleet.name}-serve-svc.{namespace_of(fleet)}.svc.{target.cluster_domain}"
    return host, SERVE_PORTS.grpc


def dashboard_address(fleet: Fleet, target: Target) -> str:
    """Give the address of the active cluster's dashboard."""
    existing = fleet.spec.existing_cluster
    if existing is not None:
        return existing.dashboard
    return built_dashboard(fleet.name, f"{namespace_of(fleet)}.svc.{target.cluster_domain}")


def built_dashboard(fleet: str, domain: str) -> str:
    """Give the address of the dashboard that KubeRay builds; `domain` holds the namespace."""
    return f"http://{fleet}-head-svc.{domain}:{DASHBOARD_PORT}"


def _serve_service() -> dict[str, Any]:
    """Ask for a Service without an address of its own, so that the edge sees every proxy."""
    ports = (
        ("serve", SERVE_PORTS.http, "http"),
        ("serve-grpc", SERVE_PORTS.grpc, "kubernetes.io/h2c"),
    )
    return {
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "ports": [
                {
                    "name": name,
                    "port": number,
                    "targetPort": number,
                    "protocol": "TCP",
                    "appProtocol": protocol,
                }
                for name, number, protocol in ports
            ],
        }
    }


def _autoscaler() -> dict[str, Any]:
    return {
        "version": "v2",
        "idleTimeoutSeconds": _IDLE_SECONDS,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": _AUTOSCALER_RESOURCES, "requests": _AUTOSCALER_RESOURCES},
        "securityContext": RESTRICTED_CONTAINER,
    }


def _group(pool: Pool, index: int, template: dict[str, Any], target: Target) -> dict[str, Any]:
    group = {
        "groupName": pool.name,
        # Where it starts; from then on it is the autoscaler's.
        "replicas": pool.min_nodes,
        "minReplicas": pool.min_nodes,
        "maxReplicas": pool.max_nodes,
        "numOfHosts": 1,
        "labels": {POOL_LABEL: pool.name},
        "rayStartParams": {},
        "template": template,
    }
    if target.kuberay.worker_group_priority:
        # By place, not by count: a pool added at the end changes none before it.
        group["priority"] = _HIGHEST_PRIORITY - index
    return group


def _shared_state(spec: FleetSpec) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if spec.auth is not None:
        state["authOptions"] = {"mode": "token", "secretName": spec.auth.token_secret_name}
    gcs = spec.gcs_fault_tolerance
    if gcs is not None:
        # KubeRay keeps clusters apart in Redis by their uid, and during an upgrade two are alive.
        state["gcsFaultToleranceOptions"] = {"redisAddress": gcs.redis_address}
        if gcs.password_secret_name is not None:
            reference = {"name": gcs.password_secret_name, "key": "password"}
            state["gcsFaultToleranceOptions"]["redisPassword"] = {
                "valueFrom": {"secretKeyRef": reference}
            }
    return state


def _options_hash(config: ServeConfig) -> str:
    options = {key: value for key, value in config.items() if key != "applications"}
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
