"""Who may open connections to a fleet's pods: clients to the edge, the fleet to itself.

Only what comes in is limited. What goes out depends on where models, Redis and the cluster's DNS
are, which nothing here knows.
"""

from __future__ import annotations

from typing import Any

from embedfleet.resources.fleet import Fleet
from embedfleet_operator.rendering.edge import EDGE_METRICS_PORT, EDGE_PORT, edge_name
from embedfleet_operator.rendering.manifests import EDGE, RAY, Manifest, manifest, pod_labels
from embedfleet_operator.rendering.ray_pods import (
    DASHBOARD_PORT,
    HAPROXY_METRICS_PORT,
    METRICS_PORT,
    SERVE_PORTS,
)
from embedfleet_operator.rendering.target import Target

__all__ = ["network_policies"]

_API = "networking.k8s.io/v1/NetworkPolicy"


def network_policies(fleet: Fleet, target: Target) -> tuple[Manifest, ...]:
    """Build one policy for the edge's pods and one for Ray's."""
    monitoring = _namespaces((target.monitoring_namespace,) if target.monitoring_namespace else ())
    clients = {"ports": _ports(EDGE_PORT)}
    return (
        _policy(fleet, EDGE, edge_name(fleet), [clients, _rule(monitoring, EDGE_METRICS_PORT)]),
        _policy(
            fleet,
            RAY,
            f"{fleet.name}-ray",
            [
                # Ray's processes choose ports of their own, between nodes.
                {"from": [_pods(fleet, RAY)]},
                _rule([_pods(fleet, EDGE)], SERVE_PORTS.grpc),
                _rule(
                    _namespaces(target.control_namespaces),
                    DASHBOARD_PORT,
                    SERVE_PORTS.http,
                    SERVE_PORTS.grpc,
                ),
                _rule(monitoring, METRICS_PORT, HAPROXY_METRICS_PORT),
            ],
        ),
    )


def _policy(fleet: Fleet, component: str, name: str, ingress: list[dict[str, Any]]) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": pod_labels(fleet, component)},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    return manifest(_API, fleet, component, name, spec)


def _rule(peers: list[dict[str, Any]], *numbers: int) -> dict[str, Any]:
    return {"from": peers, "ports": _ports(*numbers)}


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _pods(fleet: Fleet, component: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": pod_labels(fleet, component)}}


def _namespaces(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Select pods of these namespaces; of all of them where none is named."""
    if not names:
        return [{"namespaceSelector": {}}]
    return [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in names
    ]
