"""Images: linted, built of stages that end as a user who is not root, from files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfiles import stages

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(
    path for top in ("operators", "platform") for path in (ROOT / top).rglob("Dockerfile")
)
REQUIREMENTS = ROOT / "operators" / "embedfleet_operator" / "requirements.in"
HADOLINT = Path(sys.executable).with_name("hadolint")

every_image = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


def test_both_images_are_here() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["embedfleet_operator", "embedfleet"]


@every_image
def test_the_linter_finds_nothing(path: Path) -> None:
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed: make setup")
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


@every_image
def test_the_base_is_one_release_that_a_digest_can_pin(path: Path) -> None:
    assert {stage.base for stage in stages(path) if stage.base != "build"} == {"${PYTHON}"}
    (default,) = re.findall(r"^ARG PYTHON=(\S+)$", path.read_text(), re.M)
    assert re.fullmatch(r"python:3\.1[12]-slim-[a-z]+", default)


@every_image
def test_the_last_stage_runs_as_a_number_and_brings_no_tools(path: Path) -> None:
    last = stages(path)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.all("USER")[-1])
    assert last.instructions[-1].name != "RUN"
    assert not any("pip" in command for command in last.all("RUN"))


@every_image
def test_everything_that_is_copied_exists_and_is_let_in(path: Path) -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = [text.split()[:-1] for text in stages(path)[0].all("COPY")]
    for source in (each for sources in copied for each in sources):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_the_operator_lists_only_what_the_project_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = [*project["dependencies"], *project["optional-dependencies"]["operator"]]
    names = {re.split(r"[\[<>=]", each)[0] for each in known}
    lines = REQUIREMENTS.read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == sorted(listed)
    assert set(listed) <= names
    assert not {"ray", "torch"} & set(listed)


def test_packages_leave_the_images_files_out() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    excluded = project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    assert {"Dockerfile", REQUIREMENTS.name} <= set(excluded)
