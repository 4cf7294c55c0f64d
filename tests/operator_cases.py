"""Fleets whose manifests are reviewed as golden files, and the clusters they are rendered for."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedfleet.resources import Manifests, load_manifests
from embedfleet_operator.rendering import Gateway, KubeRayFeatures, Manifest, Target, render

GOLDEN = Path(__file__).parent / "unit" / "golden" / "operator"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())
KUBERAY = "github.com/ray-project/kuberay/ray-operator"
KUBERAY_VERSION = "v1.6.2"

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
    return render(manifests.only_fleet(), manifests.models, target)


def only(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


@cache
def kuberay_crd() -> dict[str, Any]:
    """Read RayService's definition from KubeRay's Go module, where that was downloaded."""
    try:
        asked = subprocess.run(
            ["go", "env", "-json", "GOMODCACHE"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("go is not on the PATH: KubeRay's definitions come in its Go module")
    folder = Path(json.loads(asked.stdout)["GOMODCACHE"]) / f"{KUBERAY}@{KUBERAY_VERSION}"
    path = folder / "config" / "crd" / "bases" / "ray.io_rayservices.yaml"
    if not path.exists():
        pytest.skip(f"run: go mod download {KUBERAY}@{KUBERAY_VERSION}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd: dict[str, Any] = yaml.load(path.read_text(), Loader=loader)
    return crd
