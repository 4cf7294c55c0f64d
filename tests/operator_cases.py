"""Fleets whose manifests are reviewed as golden files, and the clusters they are rendered for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from go_tools import kept, missing

from embedfleet.resources import Manifests, load_manifests
from embedfleet_operator.rendering import Gateway, KubeRayFeatures, Manifest, Target, render

GOLDEN = Path(__file__).parent / "unit" / "golden" / "operator"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())
BUILT = [case for case in CASES if case != "existing-cluster"]
"""Those whose cluster KubeRay builds."""


TARGET = Target(image="registry.example/embedfleet:0.1.0")
EVERYTHING = Target(
    image="registry.example/embedfleet:0.1.0",
    kuberay=KubeRayFeatures(worker_group_priority=True),
    gateway=Gateway("public", "gateways", domain="models.example"),
    monitoring=True,
    monitoring_namespace="monitoring",
    control_namespaces=("embedfleet-system", "kuberay-system"),
)
TARGETS = {"pools-with-spill": EVERYTHING, "tls": EVERYTHING}


def given(case: str) -> Manifests:
    return load_manifests([GOLDEN / case / "fleet.yaml"])


def rendered(case: str) -> tuple[Manifest, ...]:
    return render_all(given(case), TARGETS.get(case, TARGET))


def render_all(manifests: Manifests, target: Target = TARGET) -> tuple[Manifest, ...]:
    fleet = manifests.only_fleet()
    return render(fleet, manifests.models, target, caches=manifests.caches)


def only(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


@cache
def kuberay_crd() -> dict[str, Any]:
    """Read RayService's definition, which is kept beside KubeRay's operator."""
    if reason := missing("kuberay-operator"):
        pytest.skip(reason)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (kept("kuberay-operator") / "ray.io_rayservices.yaml").read_text()
    crd: dict[str, Any] = yaml.load(text, Loader=loader)
    return crd
