"""How a fleet's applications are, as Serve tells it, and waiting until they run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedfleet.errors import Unavailable
from embedfleet.local.serve_rest import ServeRest
from embedfleet.local.state import FleetState

__all__ = ["ApplicationStatus", "Progress", "applications", "summarize", "wait_ready"]

READY_SECONDS: Final = 900.0
"""Loading an 8B model from a cold disk takes minutes."""

_POLL_SECONDS: Final = 0.3
_FAILED: Final = ("DEPLOY_FAILED", "UNHEALTHY")
_OWN_ERROR: Final = re.compile(r"^(?:embedfleet\.errors\.)(\w+: .*)$", re.M)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application as Serve sees it.

    Attributes:
        status: Serve's own word, such as `RUNNING`.
        message: Why it is not running: the replica's own error where there is one.
        pids: Processes of the running replicas.
    """

    name: str
    status: str
    message: str
    target_replicas: int
    pids: tuple[int, ...]

    def __str__(self) -> str:
        """Such as `emb-docs: running, 1 of 1 replicas`."""
        word = self.status.lower().replace("_", " ")
        return f"{self.name}: {word}, {len(self.pids)} of {self.target_replicas} replicas"


def summarize(name: str, application: Mapping[str, Any]) -> ApplicationStatus:
    """Read one application of `ServeInstanceDetails`."""
    deployments = application.get("deployments", {}).values()
    messages = [application.get("message", ""), *(d.get("message", "") for d in deployments)]
    replicas = [replica for d in deployments for replica in d.get("replicas", ())]
    return ApplicationStatus(
        name=name,
        status=application["status"],
        message=_cause("\n".join(message for message in messages if message)),
        target_replicas=sum(d.get("target_num_replicas") or 0 for d in deployments),
        pids=tuple(r["pid"] for r in replicas if r["state"] == "RUNNING" and r.get("pid")),
    )


def _cause(message: str) -> str:
    """Find the platform's own error in a traceback; Serve's text where there is none."""
    own = _OWN_ERROR.findall(message)
    return own[-1] if own else message.strip()


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
        failed = [app for app in current if app.status in _FAILED]
        if failed:
            raise Unavailable("\n".join(f"{app.name}: {app.message}" for app in failed))
        if current and all(app.status == "RUNNING" for app in current):
            return
        if time.monotonic() > deadline:
            waiting = ", ".join(app.name for app in current if app.status != "RUNNING")
            raise Unavailable(
                f"{waiting} did not get ready in {timeout_seconds:.0f} s. Look at the logs in "
                f"{state.folder}/ray/session_latest/logs/serve."
            )
        time.sleep(_POLL_SECONDS)
