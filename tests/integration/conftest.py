"""A real fleet for tests: Ray, Serve, HAProxy and the edge, on free ports, stopped by its mark."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_calls import Caller

from embedfleet.config import Settings
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.state import FleetState
from embedfleet.resources import load_manifests

MANIFESTS = Path(__file__).with_name("fleet.yaml")


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ef-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fleet(home: Path) -> Iterator[FleetState]:
    """One embedder, one reranker, for every test that leaves them as they are."""
    settings = replace(Settings.load(), home=home)
    how = Up(home, settings.environment, port=0, num_cpus=2)
    state = bring_up(load_manifests([MANIFESTS]), how, lambda line: None)
    yield state
    take_down(state, home)


@pytest.fixture
def caller(fleet: FleetState) -> Iterator[Caller]:
    with Caller(fleet.endpoint) as connected:
        yield connected
