"""Everything that a fleet needs on Kubernetes, in the order in which it is best applied.

Owner references are not set: whoever applies knows the owner's uid. Only models that may serve are
given; what keeps a model out is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from embedfleet.errors import InvalidManifest
from embedfleet.golden import Golden
from embedfleet.rendering.names import Model, application
from embedfleet.resources.base import Violation
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.model_cache import ModelCache
from embedfleet_operator.rendering.edge import edge
from embedfleet_operator.rendering.gateway import grpc_route
from embedfleet_operator.rendering.manifests import COMPONENT_LABEL, EDGE, Manifest
from embedfleet_operator.rendering.network import network_policies
from embedfleet_operator.rendering.observing import pod_monitors
from embedfleet_operator.rendering.rayservice import rayservice
from embedfleet_operator.rendering.target import Target

__all__ = ["cluster_violations", "render"]

_NO_GOLDENS: Final[Mapping[str, Golden]] = {}


def render(
    fleet: Fleet,
    models: Sequence[Model],
    target: Target,
    goldens: Mapping[str, Golden] = _NO_GOLDENS,
    caches: Sequence[ModelCache] = (),
) -> tuple[Manifest, ...]:
    """Render a fleet and its models.

    Args:
        fleet: Pools, port and limits.
        models: Those that may serve.
        target: The cluster.
        goldens: By application, what its replicas must still give.
        caches: Of its namespace: where models that name one find their files.

    Raises:
        InvalidManifest: The fleet can run on a laptop only; see `cluster_violations`.
    """
    for violation in cluster_violations(fleet):
        raise InvalidManifest(
            f"{violation.path} of Fleet/{fleet.name} is {violation.value}: {violation.limit}. "
            f"{violation.remedy}",
            field=violation.path,
        )
    ordered = sorted(models, key=application)
    # Longer to write than all the rest, so not written to be left out below.
    built = not fleet.spec.existing_cluster
    found = (
        *network_policies(fleet, target),
        *((rayservice(fleet, ordered, target, goldens, caches),) if built else ()),
        *edge(fleet, ordered, target),
        *(grpc_route(fleet, target.gateway) if target.gateway else ()),
        *(pod_monitors(fleet) if target.monitoring else ()),
    )
    if not built:
        # What is Ray's belongs to whoever runs that cluster.
        return tuple(each for each in found if each["metadata"]["labels"][COMPONENT_LABEL] == EDGE)
    return found


def cluster_violations(fleet: Fleet) -> Iterator[Violation]:
    """Yield what a laptop can serve and Kubernetes cannot."""
    if not fleet.spec.pools and not fleet.spec.existing_cluster:
        yield Violation(
            "spec.pools", "empty", "on Kubernetes models run in pools only",
            "Add one, such as {name: cpu, minNodes: 1}.",
        )  # fmt: skip
    tls = fleet.spec.tls
    if tls is not None and tls.secret_name is None:
        yield Violation(
            "spec.tls.certificateFile", tls.certificate_file, "files of a laptop are not in pods",
            "Put both into a Secret of type kubernetes.io/tls and set spec.tls.secretName.",
        )  # fmt: skip
