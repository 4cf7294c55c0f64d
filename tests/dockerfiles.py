"""Reads Dockerfiles, and runs their stages' COPY and RUN in a folder, without a container engine.

A stage runs as the user who runs the tests: only one that writes to folders named by variables can
be run, and those are given other folders here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Instruction", "Stage", "run_stage", "stages"]


@dataclass(frozen=True)
class Instruction:
    """One instruction, continued lines joined."""

    name: str
    text: str


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[str]:
        return [each.text for each in self.instructions if each.name == name]


def stages(path: Path) -> list[Stage]:
    """Read the stages of a Dockerfile; what stands before the first FROM is left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M)
    found: list[tuple[str, list[Instruction]]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append((rest, []))
        elif name and found:
            found[-1][1].append(Instruction(name, rest))
    read = []
    for start, instructions in found:
        base, _, name = start.partition(" AS ")
        read.append(Stage(base, name, tuple(instructions)))
    return read


def run_stage(stage: Stage, context: Path, folder: Path, variables: Mapping[str, str]) -> None:
    """Run a stage's COPY from a context and its RUN in a folder.

    Raises:
        CalledProcessError: A command failed.
    """
    environment = {**os.environ, **variables}  # noqa: TID251
    for each in stage.instructions:
        if each.name == "COPY":
            *sources, target = each.text.split()
            _copy([context / source for source in sources], folder / target, target)
        elif each.name == "RUN":
            subprocess.run(["sh", "-euc", each.text], cwd=folder, env=environment, check=True)


def _copy(sources: Sequence[Path], target: Path, written: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
            continue
        into = target / source.name if written.endswith("/") else target
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, into)
