"""Where Prometheus finds a fleet's metrics: Ray's, Serve's proxies' and the edge's."""

from __future__ import annotations

from embedfleet.resources.fleet import Fleet
from embedfleet_operator.rendering.edge import edge_name
from embedfleet_operator.rendering.manifests import EDGE, RAY, Manifest, manifest, pod_labels

__all__ = ["pod_monitors"]

_API = "monitoring.coreos.com/v1/PodMonitor"


def pod_monitors(fleet: Fleet) -> tuple[Manifest, ...]:
    """Build a PodMonitor for the edge and one for the nodes, head included."""
    return (
        _monitor(fleet, EDGE, edge_name(fleet), ("metrics",)),
        _monitor(fleet, RAY, f"{fleet.name}-ray", ("metrics", "haproxy")),
    )


def _monitor(fleet: Fleet, component: str, name: str, ports: tuple[str, ...]) -> Manifest:
    labels = pod_labels(fleet, component)
    spec = {
        "selector": {"matchLabels": labels},
        "podTargetLabels": sorted(labels),
        "podMetricsEndpoints": [{"port": each, "path": "/metrics"} for each in ports],
    }
    return manifest(_API, fleet, component, name, spec)
