"""The way into a fleet from outside the cluster, where the Gateway API is installed."""

from __future__ import annotations

from typing import Any

from embedfleet.resources.fleet import Fleet
from embedfleet_operator.rendering.manifests import EDGE, Manifest, manifest, namespace_of
from embedfleet_operator.rendering.target import Gateway

__all__ = ["grpc_route"]

_API = "gateway.networking.k8s.io/v1/GRPCRoute"
_GROUP = "gateway.networking.k8s.io"


def grpc_route(fleet: Fleet, gateway: Gateway) -> tuple[Manifest, ...]:
    """Build the route to the fleet's Service.

    Returns:
        Nothing where the edge ends TLS itself: a gateway would send it plain text.
    """
    if fleet.spec.tls is not None:
        return ()
    backend = {"group": "", "kind": "Service", "name": fleet.name, "port": fleet.spec.grpc.port}
    parent = {
        "group": _GROUP,
        "kind": "Gateway",
        "name": gateway.name,
        "namespace": gateway.namespace,
    }
    spec: dict[str, Any] = {
        "parentRefs": [parent],
        "rules": [{"backendRefs": [{**backend, "weight": 1}]}],
    }
    if gateway.domain:
        spec["hostnames"] = [f"{fleet.name}.{namespace_of(fleet)}.{gateway.domain}"]
    return (manifest(_API, fleet, EDGE, fleet.name, spec),)
