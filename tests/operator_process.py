"""The operator's own program against a control plane, and kubectl as people use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from control_plane import ADMIN, ControlPlane, wait
from go_tools import tool

from embedfleet.local.ports import free_ports

__all__ = ["Kubectl", "RunningOperator", "condition", "operator"]


@dataclass(frozen=True)
class RunningOperator:
    """An operator that watches.

    Attributes:
        log: What it has written.
    """

    process: subprocess.Popen[bytes]
    health: int
    metrics: int
    log: Path

    def scrape(self) -> str:
        """Read its metrics."""
        return httpx.get(f"http://127.0.0.1:{self.metrics}/metrics").text


@contextmanager
def operator(
    plane: ControlPlane, token: str = ADMIN, *flags: str, name: str = "operator"
) -> Iterator[RunningOperator]:
    """Run the operator with an account's token, and stop it as a kubelet would."""
    metrics, health = free_ports(2)
    log = plane.folder / f"{name}.log"
    command = [
        sys.executable, "-m", "embedfleet_operator", f"--kubeconfig={plane.kubeconfig(token)}",
        f"--identity={name}", f"--metrics-port={metrics}", f"--health-port={health}", *flags,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-4000:]
        return httpx.get(f"http://127.0.0.1:{health}/readyz").is_success

    try:
        wait(ready, f"the operator; see {log}")
        yield RunningOperator(process, health, metrics, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    plane: ControlPlane
    namespace: str

    def __call__(self, *arguments: str, given: str = "") -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self.try_to(*arguments, given=given)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command."""
        command = [
            str(tool("kubectl")), f"--kubeconfig={self.plane.kubeconfig()}",
            f"--cache-dir={self.plane.folder / 'kubectl'}", f"--namespace={self.namespace}",
            *arguments,
        ]  # fmt: skip
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    def apply(self, *resources: dict[str, Any]) -> str:
        """Apply resources, which get the group's version and this namespace."""
        whole = [
            {"apiVersion": "embedfleet.io/v1alpha1", **each}
            | {"metadata": {"namespace": self.namespace, **each["metadata"]}}
            for each in resources
        ]
        return self("apply", "--filename=-", given=yaml.safe_dump_all(whole))

    def get(self, what: str) -> dict[str, Any]:
        """Read one object such as `fleet/search`; empty if there is none."""
        text = self("get", what, "--output=yaml", "--ignore-not-found")
        found: dict[str, Any] = yaml.safe_load(text) or {}
        return found


def condition(resource: dict[str, Any], kind: str) -> tuple[str, str, str]:
    """Read status, reason and message of a condition; empty words if it is not set."""
    for each in resource.get("status", {}).get("conditions", ()):
        if each["type"] == kind:
            return each["status"], each["reason"], each["message"]
    return "", "", ""
