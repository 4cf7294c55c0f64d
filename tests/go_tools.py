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
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "tools"
CACHE: Final = Path.home() / ".cache" / "embedfleet-test-tools"

KUBERNETES: Final = "1.35.4"
KUBERAY: Final = "github.com/ray-project/kuberay/ray-operator"
_VERSION: Final = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Program:
    """What is built.

    Attributes:
        module: Folder of the module that pins it.
        package: What is compiled.
        variables: Texts that are linked in.
        keeps: Folder of the package's sources that is kept beside the program.
    """

    module: str
    package: str
    variables: Mapping[str, str] = field(default_factory=dict)
    keeps: str = ""

    @property
    def ldflags(self) -> str:
        """What the linker is told."""
        return " ".join(
            ["-s", "-w", *(f"-X {key}={value}" for key, value in self.variables.items())]
        )


def _kubernetes(name: str) -> Program:
    # Without the variables, clients take it for version 0.0.0.
    major, minor, _ = KUBERNETES.split(".")
    said = {"Version": f"v{KUBERNETES}", "Major": major, "Minor": minor, "TreeState": "clean"}
    variables = {f"{_VERSION}.git{what}": value for what, value in said.items()}
    return Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", variables)


PROGRAMS: Final[Mapping[str, Program]] = {
    "grpcurl": Program("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl"),
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("kube-apiserver"),
    "kubectl": _kubernetes("kubectl"),
    "kube-controller-manager": _kubernetes("kube-controller-manager"),
    "kuberay-operator": Program("kuberay", KUBERAY, keeps="config/crd/bases"),
    "helm": Program("helm", "helm.sh/helm/v4/cmd/helm"),
}
"""Those that share packages stand together: the second of them takes a fraction of the first."""


def tool(name: str) -> Path:
    """Say where a program lies once it is built: another pin, another folder."""
    files = (MODULES / PROGRAMS[name].module / part for part in ("go.mod", "go.sum"))
    pinned = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return CACHE / pinned.hexdigest()[:16] / name


def kept(name: str) -> Path:
    """Say where the folder lies that is kept beside a program, such as KubeRay's definitions."""
    return tool(name).with_suffix(".files")


def build(name: str) -> None:
    """Build one program; a build that is cut short leaves nothing under its name."""
    path, program = tool(name), PROGRAMS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{name}.{os.getpid()}")
    _go(program, "build", "-trimpath", f"-ldflags={program.ldflags}", "-o", str(fresh),
        program.package)  # fmt: skip
    if program.keeps:
        sources = _go(program, "list", "-m", "-f", "{{.Dir}}", program.package).strip()
        kept(name).mkdir(exist_ok=True)
        for file in (Path(sources) / program.keeps).iterdir():
            # Without its mode: Go's cache is read-only.
            shutil.copyfile(file, kept(name) / file.name)
    fresh.replace(path)


def _go(program: Program, *arguments: str) -> str:
    done = subprocess.run(
        ["go", *arguments],
        cwd=MODULES / program.module,
        env={**os.environ, "CGO_ENABLED": "0"},  # noqa: TID251
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def missing(*names: str) -> str:
    """Say which of these programs are not there, and why; empty where all are."""
    absent = [name for name in names if not tool(name).exists()]
    if not absent:
        return ""
    return f"{', '.join(absent)}: {missing_go() or 'not built; `make tools` builds it'}"


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
    if wanted:
        sys.stdout.write(f"To build, once for each version: {', '.join(wanted)}.\n")
    for name in wanted:
        sys.stdout.write(f"{name} ... ")
        sys.stdout.flush()
        began = time.monotonic()
        build(name)
        sys.stdout.write(f"{time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
