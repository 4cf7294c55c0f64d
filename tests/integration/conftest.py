"""A real fleet for tests: Ray, Serve, HAProxy and the edge, on free ports, stopped by its mark."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from embedfleet.config import Settings
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.state import FleetState
from embedfleet.resources import load_manifests


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ef-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fleet(home: Path) -> Iterator[FleetState]:
    """The demo's fleet: one embedder, one reranker."""
    with resources.as_file(resources.files("embedfleet.embedded") / "fleet.yaml") as path:
        manifests = load_manifests([path])
    settings = replace(Settings.load(), home=home)
    state = bring_up(manifests, Up(home, settings.environment, port=0), lambda line: None)
    yield state
    take_down(state, home)
