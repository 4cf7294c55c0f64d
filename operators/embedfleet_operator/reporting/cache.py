"""The status of a ModelCache from its Job and the Job's pods, and what it means for its models.

Pure: asks nobody. A pod's last words say what was fetched, or why not; what they said of files that
were fetched stays, since pods are cleaned up and files are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from embedfleet.rendering.cache import CacheReport, FetchResult
from embedfleet.resources.model_cache import ModelCache
from embedfleet_operator.conditions.reasons import REASONS, Observation, Reason
from embedfleet_operator.conditions.verdicts import (
    STUCK_AFTER,
    Refusal,
    Verdict,
    accepted,
    false,
    settle,
    true,
)
from embedfleet_operator.crds.status import CacheStatus, Truth
from embedfleet_operator.rendering.caching import claim_name

__all__ = ["CacheObservation", "cache_status", "cached_verdict"]

_NOTHING: Final = CacheStatus()
_DONE: Final = ("Complete", "SuccessCriteriaMet")
_GIVEN_UP: Final = ("Failed", "FailureTarget")
_NOT_BY_MODELS: Final = "Golden outputs are compared by the models that load these files."
_WAITS_FOR_SECRET: Final = "CreateContainerConfigError"
_USERS: Final = 16
"""Models that are named; a status is short."""
_MESSAGE: Final = 512
"""Characters of a crash: its end says most."""


@dataclass(frozen=True, slots=True)
class CacheObservation:
    """What is known of a cache.

    Attributes:
        generation: Of the resource that was read.
        previous: The status as it was last written.
        refusal: Why it is not accepted; None if it is.
        failure: What kept its claim or Job from being made; empty if nothing did.
        job: The Job that does what the spec says; None if there is none.
        pods: Pods of that Job, those that ended too.
        held_by: Models that keep it from being deleted; none if it is not to be.
    """

    generation: int
    previous: CacheStatus = _NOTHING
    refusal: Refusal | None = None
    failure: str = ""
    job: Mapping[str, Any] | None = None
    pods: Sequence[Mapping[str, Any]] = ()
    held_by: tuple[str, ...] = ()


def cache_status(
    cache: ModelCache | None, observed: CacheObservation, now: datetime
) -> CacheStatus:
    """Write a cache's status; one that cannot be read is None, and refused."""
    pods = sorted(observed.pods, key=_age)
    cached = _cached(observed, pods)
    verdicts = {
        Observation.ACCEPTED: accepted(observed.refusal),
        Observation.CACHED: cached,
        Observation.VERIFIED: true(Reason.NOT_NEEDED, _NOT_BY_MODELS),
        Observation.PROGRESSING: _progressing(cached, observed.held_by),
        Observation.READY: cached,
        Observation.WARM: cached,
        Observation.DEGRADED: _degraded(cached, observed.failure, pods, now),
    }
    status = observed.previous.model_copy(
        update={
            "observed_generation": observed.generation,
            "conditions": settle(verdicts, observed.previous, observed.generation, now),
            "claim_name": (claim_name(cache) if cache else "") or None,
        }
    )
    return status.model_copy(update=_facts(pods)) if cached.status is Truth.TRUE else status


def cached_verdict(name: str, status: CacheStatus | None) -> Verdict:
    """Say of a model that names a cache whether its files are there.

    `status` is the cache's, as written for what is in its spec now; None before there is one.
    """
    found = (each for each in (status.conditions if status else None) or ())
    cached = next((each for each in found if each.type == Observation.CACHED), None)
    if cached is None:
        return false(Reason.FETCHING, f"ModelCache/{name} has not been looked at yet.")
    return Verdict(cached.status, Reason(cached.reason), f"ModelCache/{name}: {cached.message}")


def _cached(observed: CacheObservation, pods: Sequence[Mapping[str, Any]]) -> Verdict:
    if observed.refusal is not None:
        return false(Reason.HELD, f"Accepted is False: {observed.refusal.message}")
    if observed.job is None and observed.failure:
        return false(Reason.APPLY_FAILED, observed.failure)
    if observed.job is None:
        return false(Reason.FETCHING, "Its Job is about to be created.")
    name = observed.job["metadata"]["name"]
    holding = {
        each["type"]: str(each.get("message", ""))
        for each in observed.job.get("status", {}).get("conditions", ())
        if each["status"] == "True"
    }
    if any(each in holding for each in _DONE):
        return true(Reason.FETCHED)
    failures = [failure for pod in pods for failure in _failure(pod)]
    given_up = next((holding[each] for each in _GIVEN_UP if each in holding), None)
    if given_up is not None:
        reason, message = failures[-1] if failures else (Reason.FETCH_FAILED, given_up)
        return false(
            reason,
            f"{message} A change of the spec is tried at once; if something else was wrong, delete "
            f"Job/{name} to try again.",
        )
    waits = next((text for pod in pods[-1:] for text in _waits_for_secret(pod)), None)
    if waits is not None:
        return false(Reason.SECRET_MISSING, f"{waits}: the pod waits until it is there. Create it.")
    if failures:
        return false(Reason.FETCHING, f"It is tried again. The last attempt: {failures[-1][1]}")
    held_up = next((text for pod in pods[-1:] for text in _unschedulable(pod)), None)
    if held_up is not None:
        return false(Reason.FETCHING, f"The pod of Job/{name} waits for a node: {held_up}")
    return false(Reason.FETCHING, f"Job/{name} fetches; its pod's log says how far it is.")


def _progressing(cached: Verdict, held_by: Sequence[str]) -> Verdict:
    if held_by:
        text = f"Used by {', '.join(held_by[:_USERS])}"
        more = f" and {len(held_by) - _USERS} more" if len(held_by) > _USERS else ""
        return true(Reason.IN_USE, f"{text}{more}. {REASONS[Reason.IN_USE]}")
    if cached.reason is Reason.FETCHING:
        return true(Reason.FETCHING, cached.message)
    if cached.status is Truth.TRUE:
        return false(Reason.SETTLED)
    return false(cached.reason, cached.message)


def _degraded(
    cached: Verdict, failure: str, pods: Sequence[Mapping[str, Any]], now: datetime
) -> Verdict:
    if failure:
        return true(Reason.APPLY_FAILED, failure)
    if cached.reason in (Reason.FETCH_FAILED, Reason.DIGEST_MISMATCH, Reason.SECRET_MISSING):
        return true(cached.reason, cached.message)
    for pod in pods[-1:]:
        since = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        if _status(pod).get("phase") == "Pending" and now - since > STUCK_AFTER:
            name = pod["metadata"]["name"]
            return true(
                Reason.STUCK,
                f"Pod/{name} has not started for more than 15 minutes: look at its events, and "
                "whether its claim is bound.",
            )
    return false(Reason.HEALTHY)


def _facts(pods: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Read what was fetched from the last pod that did; nothing if it was cleaned up."""
    reports = (report for pod in reversed(pods) for report in _reports(pod))
    report = next((each for each in reports if each.result is FetchResult.FETCHED), None)
    if report is None:
        return {}
    return {
        "cached_bytes": report.num_bytes,
        "wanted_bytes": report.num_bytes,
        "revision": report.revision or None,
        "weights_digest": report.weights_digest,
        "tokenizer_digest": report.tokenizer_digest,
    }


def _failure(pod: Mapping[str, Any]) -> Iterator[tuple[Reason, str]]:
    """Say why a pod failed, in its own words where it had time for some."""
    for ended in _ended(pod):
        if ended.get("exitCode") == 0:
            continue
        report = CacheReport.of_text(ended.get("message", ""))
        if report is not None:
            yield Reason(str(report.result)), report.message
        else:
            said = ended.get("message", "").strip()[-_MESSAGE:]
            why = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}"
            name = pod["metadata"]["name"]
            yield Reason.FETCH_FAILED, f"Pod/{name} ended with {why}. {said}".rstrip()


def _reports(pod: Mapping[str, Any]) -> Iterator[CacheReport]:
    for ended in _ended(pod):
        report = CacheReport.of_text(ended.get("message", ""))
        if report is not None:
            yield report


def _ended(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for container in _status(pod).get("containerStatuses", ()):
        if "terminated" in container.get("state", {}):
            yield container["state"]["terminated"]


def _waits_for_secret(pod: Mapping[str, Any]) -> Iterator[str]:
    for container in _status(pod).get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") == _WAITS_FOR_SECRET:
            yield str(waiting.get("message") or "A Secret is missing").rstrip(".")


def _unschedulable(pod: Mapping[str, Any]) -> Iterator[str]:
    for condition in _status(pod).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield str(condition.get("message", ""))


def _status(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod.get("status", {})
    return found


def _age(pod: Mapping[str, Any]) -> tuple[str, str]:
    metadata = pod["metadata"]
    return str(metadata.get("creationTimestamp", "")), str(metadata["name"])
