"""What Serve says of each application, read from `GET /api/serve/applications/`.

Reads values only (`ServeInstanceDetails`, ray 2.60 serve/schema.py) and asks nobody, so that a
laptop and an operator tell the same story of the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FAILED", "ApplicationStatus", "ScaleDecision", "summarize"]

FAILED: Final = ("DEPLOY_FAILED", "UNHEALTHY")
"""Serve's words for an application that does not come up, or no longer answers."""

_ANSWERING: Final = ("RUNNING", "UPDATING", "PENDING_MIGRATION")
"""A replica that takes new settings over holds its calls for a moment and loses none."""

_END_OF_CALENDAR: Final = 253_402_300_800
_MOST_REPLICAS: Final = 1_000_000
"""What a status can hold, and a thousand times what a manifest can ask for."""
_OWN_ERROR: Final = re.compile(r"^(?:embedfleet\.errors\.)(\w+: .*)$", re.M)


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """A change of the number of replicas that Serve's autoscaling decided.

    Attributes:
        timestamp_seconds: When, in Unix time.
        reason: Serve's own words.
    """

    timestamp_seconds: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application as Serve sees it.

    Attributes:
        status: Serve's own word, such as `RUNNING`.
        message: Why it is not running: the replica's own error where there is one.
        pids: Processes of the replicas that answer.
        live_replicas: Replicas that run or start.
        last_scale: The latest change of `target_replicas` that autoscaling made, if any.
    """

    name: str
    status: str
    message: str
    target_replicas: int
    pids: tuple[int, ...]
    live_replicas: int = 0
    last_scale: ScaleDecision | None = None

    def __str__(self) -> str:
        """Such as `emb-docs: running, 1 of 1 replicas`."""
        word = self.status.lower().replace("_", " ")
        return f"{self.name}: {word}, {len(self.pids)} of {self.target_replicas} replicas"


def summarize(name: str, application: Mapping[str, Any]) -> ApplicationStatus:
    """Read one application of `ServeInstanceDetails`.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is none.
    """
    deployments = list(application.get("deployments", {}).values())
    messages = [application.get("message", ""), *(d.get("message", "") for d in deployments)]
    replicas = [replica for d in deployments for replica in d.get("replicas", ())]
    return ApplicationStatus(
        name=name,
        status=str(application["status"]),
        message=_cause("\n".join(message for message in messages if message)),
        target_replicas=sum(int(d.get("target_num_replicas") or 0) for d in deployments),
        pids=tuple(r["pid"] for r in replicas if r["state"] in _ANSWERING and r.get("pid")),
        live_replicas=sum(replica["state"] != "STOPPING" for replica in replicas),
        last_scale=_last_scale(deployments),
    )


def _cause(message: str) -> str:
    """Find the platform's own error in a traceback; Serve's text where there is none."""
    own = _OWN_ERROR.findall(message)
    return own[-1] if own else message.strip()


def _last_scale(deployments: Iterable[Mapping[str, Any]]) -> ScaleDecision | None:
    decisions = (
        ScaleDecision(
            timestamp_seconds=_seconds(each["timestamp_s"]),
            before=_count(each["prev_num_replicas"]),
            after=_count(each["curr_num_replicas"]),
            reason=str(each["reason"]),
        )
        for deployment in deployments
        for each in (deployment.get("autoscaling_detail") or {}).get("decisions", ())
    )
    moves = (decision for decision in decisions if decision.before != decision.after)
    return max(moves, key=lambda decision: decision.timestamp_seconds, default=None)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < _END_OF_CALENDAR:
        raise ValueError(f"{value} is no Unix time")
    return seconds


def _count(value: Any) -> int:
    count = int(value)
    if not 0 <= count <= _MOST_REPLICAS:
        raise ValueError(f"{value} is no number of replicas")
    return count
