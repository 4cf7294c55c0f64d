"""Programs that tests call and Go builds: pinned under tests/tools, kept outside the checkout.

Usage: python tests/go_tools.py    builds what is missing, once for each pinned version.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "tools"
CACHE: Final = Path.home() / ".cache" / "embedfleet-test-tools"

KUBERNETES: Final = "1.35.4"
_VERSION: Final = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Program:
    """What is built: the folder of the module that pins it, its package, and what to link in."""

    module: str
    package: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def ldflags(self) -> str:
        """What the linker is told."""
        return " ".join(
            ["-s", "-w", *(f"-X {key}={value}" for key, value in self.variables.items())]
        )


PROGRAMS: Final[Mapping[str, Program]] = {
    "grpcurl": Program("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl"),
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Program(
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        # Without these, clients take it for version 0.0.0.
        {
            f"{_VERSION}.gitVersion": f"v{KUBERNETES}",
            f"{_VERSION}.gitMajor": "1",
            f"{_VERSION}.gitMinor": "35",
            f"{_VERSION}.gitTreeState": "clean",
        },
    ),
}


def tool(name: str) -> Path:
    """Say where a program lies once it is built: another pin, another folder."""
    files = (MODULES / PROGRAMS[name].module / part for part in ("go.mod", "go.sum"))
    pinned = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return CACHE / pinned.hexdigest()[:16] / name


def build(name: str) -> None:
    """Build one program; a build that is cut short leaves nothing under its name."""
    path, program = tool(name), PROGRAMS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{name}.{os.getpid()}")
    subprocess.run(
        ["go", "build", "-trimpath", f"-ldflags={program.ldflags}", "-o", fresh, program.package],
        cwd=MODULES / program.module,
        env={**os.environ, "CGO_ENABLED": "0"},  # noqa: TID251
        check=True,
    )
    fresh.replace(path)


def missing_go() -> str:
    """Say why nothing can be built here; empty where it can."""
    if shutil.which("go") is None:
        return "go is not on the PATH"
    told = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False)
    version = re.match(r"go(\d+)\.(\d+)", told.stdout)
    if version is None or tuple(map(int, version.groups())) < (1, 25):
        return f"go is {told.stdout.strip()}; 1.25 or newer is needed"
    return ""


def main() -> None:
    wanted = [name for name in PROGRAMS if not tool(name).exists()]
    if wanted and (reason := missing_go()):
        sys.stdout.write(f"Tests that call {', '.join(wanted)} will be skipped: {reason}.\n")
        return
    for name in wanted:
        sys.stdout.write(f"Building {name}, once: some minutes ...\n")
        sys.stdout.flush()
        build(name)


if __name__ == "__main__":
    main()
