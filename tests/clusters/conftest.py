"""A control plane for roll-outs that are disturbed, each in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import ControlPlane
from operator_course import Course, prepared, undisturbed


@pytest.fixture(scope="package")
def plane() -> Iterator[ControlPlane]:
    with prepared() as running:
        yield running


@pytest.fixture(scope="package")
def course(plane: ControlPlane) -> Course:
    return undisturbed(plane)
