"""What README shows works as it stands there."""

import pkgutil
import re
from pathlib import Path

import pytest

import embedfleet
from embedfleet.cli.main import COMMANDS
from embedfleet.resources import parse_manifests
from embedfleet.resources.manifest import KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*?##", (ROOT / "Makefile").read_text(), re.M)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def indented():
    """Lines that a reader would type into a shell."""
    outside = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    return re.findall(r"^    (\S.*)$", outside, re.M)


def test_python_compiles():
    assert len(blocks("python")) >= 2
    for number, block in enumerate(blocks("python")):
        compile(block, f"README python {number}", "exec")


def test_manifests_can_be_served():
    (block,) = blocks("yaml")
    manifests = parse_manifests(block)
    assert (len(manifests.embedders), len(manifests.rerankers)) == (1, 1)


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^ +)make ([a-z-]+)", README, re.M)))
)
def test_make_target_exists(target):
    assert target in TARGETS


@pytest.mark.parametrize(
    "command", sorted({m[1] for line in indented() if (m := re.match(r"embedfleet (\w+)", line))})
)
def test_command_exists(command):
    assert command in COMMANDS


def folders():
    """Every path in the table of folders, braces expanded."""
    (table,) = re.findall(r"^\| folder \|.*?\n\n", README, re.M | re.S)
    for cell in re.findall(r"^\| `([\w/{},]+)` \|", table, re.M):
        head, _, names = cell.rstrip("/").partition("{")
        for name in names.rstrip("}").split(","):
            yield f"{head}{name}"


def test_folders_exist():
    for folder in folders():
        path = ROOT / folder
        assert path.is_dir() or path.with_suffix(".py").is_file(), folder


def test_every_module_has_its_line():
    package = Path(embedfleet.__file__).parent
    modules = {info.name for info in pkgutil.iter_modules([str(package)])}
    shown = {Path(folder).name for folder in folders() if folder.startswith("platform/embedfleet/")}
    assert shown == (modules - {"__main__"}) | {"embedded"}


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_every_kind_has_an_example():
    kinds = re.findall(r"^\| `(\w+)` \| \[[\w.]+\]\(charts/embedfleet/examples/", README, re.M)
    assert kinds == list(KINDS)
