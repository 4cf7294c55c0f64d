"""A fleet and its models into what Kubernetes is asked for: pure functions, deterministic."""

from embedfleet_operator.rendering.definition import unknown_fields
from embedfleet_operator.rendering.manifests import Manifest, to_yaml
from embedfleet_operator.rendering.render import cluster_violations, render
from embedfleet_operator.rendering.target import Gateway, KubeRayFeatures, Target

__all__ = [
    "Gateway",
    "KubeRayFeatures",
    "Manifest",
    "Target",
    "cluster_violations",
    "render",
    "to_yaml",
    "unknown_fields",
]
