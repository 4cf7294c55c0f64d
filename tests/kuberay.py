"""KubeRay's own operator beside a control plane for tests, stopped by its handle.

Nothing runs the pods that it creates, unless the test does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import control_plane
import go_tools
import httpx
import yaml
from control_plane import ControlPlane, process, wait
from go_tools import kept

from embedfleet.local.ports import free_ports

__all__ = ["definitions", "kuberay", "missing"]

PROGRAM = "kuberay-operator"


def missing() -> str:
    """Say why KubeRay cannot be run here; empty where it can."""
    return control_plane.missing() or go_tools.missing(PROGRAM)


@cache
def definitions() -> tuple[dict[str, Any], ...]:
    """Read KubeRay's CustomResourceDefinitions, which are kept beside its operator."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    files = sorted(kept(PROGRAM).glob("*.yaml"))
    return tuple(yaml.load(path.read_text(), Loader=loader) for path in files)


@contextmanager
def kuberay(plane: ControlPlane, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Install KubeRay's kinds and run its operator; it logs beside the control plane's logs.

    Args:
        plane: Where it runs.
        arguments: More of its flags.
    """
    plane.install(definitions())
    metrics, probes = free_ports(2)
    with process(
        plane.folder, PROGRAM, f"--kubeconfig={plane.kubeconfig()}",
        "--enable-leader-election=false", f"--metrics-addr=127.0.0.1:{metrics}",
        f"--health-probe-bind-address=127.0.0.1:{probes}", *arguments,
    ) as running:  # fmt: skip

        def ready() -> bool:
            log = plane.folder / f"{PROGRAM}.log"
            assert running.poll() is None, log.read_text()[-4000:]
            return httpx.get(f"http://127.0.0.1:{probes}/readyz").is_success

        wait(ready, "KubeRay")
        yield running
