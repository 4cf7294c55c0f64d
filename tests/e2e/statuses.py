"""What a node says about a pod, from how its containers are (pure; core/v1 PodStatus)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["Container", "now", "phase", "status"]

Resource = Mapping[str, Any]


@dataclass
class Container:
    """How a container is.

    Attributes:
        waiting: Why it does not run; empty where it runs or has ended.
        terminated: How its last run ended; None before the first end.
        over: Whether it is not started again.
    """

    name: str
    image: str = ""
    waiting: str = "ContainerCreating"
    message: str = ""
    started_at: str = ""
    terminated: dict[str, Any] | None = None
    over: bool = False
    started: bool = False
    ready: bool = False
    restarts: int = 0

    @property
    def code(self) -> int | None:
        """With what it ended for good; None while it has not."""
        return self.terminated["exitCode"] if self.over and self.terminated else None


def now() -> str:
    """Give the time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(first: Sequence[Container], containers: Sequence[Container]) -> str:
    """Say where a pod is in its life; `first` are its init containers."""
    if any(each.code for each in first):
        return "Failed"
    if all(each.over for each in containers):
        return "Failed" if any(each.code for each in containers) else "Succeeded"
    return "Running" if any(each.started_at for each in containers) else "Pending"


def status(
    first: Sequence[Container], containers: Sequence[Container], address: str, before: Resource
) -> dict[str, Any]:
    """Write a pod's status; of `before`, the last one, times are kept where nothing changed."""
    lived = phase(first, containers)
    initialized = all(each.code == 0 for each in first)
    ended = lived in ("Succeeded", "Failed")
    ready = not ended and all(each.ready for each in containers)
    truths = {
        "PodScheduled": True,
        "Initialized": initialized,
        "ContainersReady": ready,
        "Ready": ready,
    }
    known = {each["type"]: each for each in before.get("conditions", ())}
    return {
        "phase": lived,
        "startTime": before.get("startTime") or now(),
        "hostIP": address,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [_condition(kind, known, holds) for kind, holds in truths.items()],
        "initContainerStatuses": [_container(each, initialized) for each in first],
        "containerStatuses": [_container(each, each.ready) for each in containers],
    }


def _condition(kind: str, known: Mapping[str, Resource], holds: bool) -> dict[str, Any]:
    said = str(holds)
    before = known.get(kind, {})
    since = before.get("lastTransitionTime") if before.get("status") == said else None
    return {"type": kind, "status": said, "lastTransitionTime": since or now()}


def _container(container: Container, ready: bool) -> dict[str, Any]:
    ended = container.terminated
    state: dict[str, Any]
    if container.over and ended:
        state = {"terminated": ended}
    elif container.waiting:
        state = {"waiting": {"reason": container.waiting, "message": container.message}}
    else:
        state = {"running": {"startedAt": container.started_at}}
    return {
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": state,
        "lastState": {"terminated": ended} if ended and not container.over else {},
    }
