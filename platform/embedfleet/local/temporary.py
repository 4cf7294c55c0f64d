"""A fleet that leaves nothing behind: for demonstrations, tests and measures."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.readiness import Progress
from embedfleet.local.state import FleetState
from embedfleet.resources import Manifests

__all__ = ["temporary_fleet"]


@contextmanager
def temporary_fleet(
    manifests: Manifests,
    environment: Mapping[str, str],
    report: Progress,
    *,
    num_cpus: int | None = None,
) -> Iterator[FleetState]:
    """Bring a fleet up on free ports, and take it down with all its files whatever happens.

    Other commands of this machine do not see it: its state lies in a folder of its own. `num_cpus`
    is the cores that Ray may hand out; None means all.
    """
    home = Path(tempfile.mkdtemp(prefix="ef-home-"))
    try:
        how = Up(home=home, environment=environment, port=0, num_cpus=num_cpus)
        state = bring_up(manifests, how, report)
        try:
            yield state
        finally:
            take_down(state, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
