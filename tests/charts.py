"""The charts for tests: helm, kept out of the user's home, and what it renders."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from go_tools import tool

__all__ = ["CHART", "CRDS", "IMAGES", "helm", "rendered", "template"]

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "embedfleet"
CRDS = ROOT / "charts" / "embedfleet-crds"

IMAGES: Mapping[str, Any] = {
    "image": {"repository": "registry.example/operator"},
    "fleetImage": {"repository": "registry.example/fleet"},
}
"""The two values without which nothing is installed."""


def helm(
    *arguments: str | Path, values: Mapping[str, Any] | None = None, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm with values; it writes into a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ef-helm-") as folder:
        homes = {f"HELM_{each}_HOME": f"{folder}/{each}" for each in ("CACHE", "CONFIG", "DATA")}
        command = [tool("helm"), *arguments]
        if values is not None:
            (Path(folder) / "values.yaml").write_text(yaml.safe_dump(dict(values)))
            command += ["--values", f"{folder}/values.yaml"]
        if kubeconfig is not None:
            command += ["--kubeconfig", kubeconfig]
        return subprocess.run(
            command,
            env={**os.environ, **homes},  # noqa: TID251
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def template(
    values: Mapping[str, Any], release: str = "embedfleet", namespace: str = "system"
) -> subprocess.CompletedProcess[str]:
    """Render the operator's chart."""
    return helm("template", release, CHART, "--namespace", namespace, values=values)


def rendered(
    values: Mapping[str, Any] | None = None, release: str = "embedfleet", namespace: str = "system"
) -> list[dict[str, Any]]:
    """Give what the operator's chart renders with the images and these values."""
    text = _rendered(json.dumps({**IMAGES, **(values or {})}), release, namespace)
    return [each for each in yaml.safe_load_all(text) if each]


@cache
def _rendered(values: str, release: str, namespace: str) -> str:
    done = template(json.loads(values), release, namespace)
    assert done.returncode == 0, done.stderr
    return done.stdout
