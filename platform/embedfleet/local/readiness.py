"""How a fleet's applications are, as Serve tells it, and waiting until they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from embedfleet.errors import Unavailable
from embedfleet.local.state import FleetState
from embedfleet.rendering.serve_state import FAILED, ApplicationStatus, summarize
from embedfleet.serve_rest import ServeRest

__all__ = ["Progress", "applications", "wait_ready"]

READY_SECONDS: Final = 900.0
"""Loading an 8B model from a cold disk takes minutes."""

_POLL_SECONDS: Final = 0.3

Progress = Callable[[str], None]


def applications(state: FleetState) -> list[ApplicationStatus]:
    """Ask Serve how each application is."""
    with ServeRest(state.dashboard, state.token) as serve:
        details = serve.get()
    return [summarize(name, app) for name, app in sorted(details["applications"].items())]


def wait_ready(state: FleetState, report: Progress, timeout_seconds: float = READY_SECONDS) -> None:
    """Wait until every application runs, reporting each change.

    Raises:
        Unavailable: One failed, or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    seen: dict[str, str] = {}
    while True:
        current = applications(state)
        for app in current:
            if seen.get(app.name) != str(app):
                seen[app.name] = str(app)
                report(str(app))
        failed = [app for app in current if app.status in FAILED]
        if failed:
            raise Unavailable("\n".join(f"{app.name}: {app.message}" for app in failed))
        if current and all(app.status == "RUNNING" for app in current):
            return
        if time.monotonic() > deadline:
            waiting = ", ".join(app.name for app in current if app.status != "RUNNING")
            raise Unavailable(
                f"{waiting} did not get ready in {timeout_seconds:.0f} s. Look at Serve's logs, in "
                f"{state.folder}/ray/session_latest/logs/serve or where a failed start keeps them."
            )
        time.sleep(_POLL_SECONDS)
