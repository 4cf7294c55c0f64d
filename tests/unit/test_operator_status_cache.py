"""Conditions of caches: a table of what a Job and its pods look like and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embedfleet.rendering.cache import CacheReport, FetchResult
from embedfleet.rendering.plan import Impact
from embedfleet.resources import parse_manifests
from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.crds.status import CacheStatus, Truth
from embedfleet_operator.reporting.cache import CacheObservation, cache_status, cached_verdict
from embedfleet_operator.reporting.model import ModelObservation, may_serve, model_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
MANIFESTS = parse_manifests(
    f"{HEAD}kind: ModelCache\nmetadata: {{name: weights}}\n"
    "spec: {source: {hub: {name: Qwen/Qwen3-Embedding-0.6B}}}\n---\n"
    f"{HEAD}kind: Embedder\nmetadata: {{name: docs}}\n"
    "spec: {model: {size: 0.6B, cache: weights}}\n"
)
(CACHE,) = MANIFESTS.caches
(MODEL,) = MANIFESTS.embedders
FETCHED = CacheReport(
    result=FetchResult.FETCHED, message="3 files are in /models/weights.", num_bytes=1234,
    revision="b" * 40, weights_digest="c" * 64, tokenizer_digest="d" * 64,
)  # fmt: skip
REFUSED = Refusal(Reason.INVALID, "spec.source is empty. Set one.")


def report(result: FetchResult, message: str = "The hub answered 404.") -> str:
    return CacheReport(result=result, message=message).to_text()


def job(**conditions: str) -> dict[str, Any]:
    """A Job with conditions that hold, each with its message."""
    found = [{"type": k, "status": "True", "message": v} for k, v in conditions.items()]
    return {"metadata": {"name": "weights-fetch-0"}, "status": {"conditions": found}}


def pod(phase: str, state: dict[str, Any] | None = None, minutes: int = 0, **more: Any) -> Any:
    created = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    containers = {"containerStatuses": [{"name": "fetch", "state": state}]} if state else {}
    metadata = {"name": f"pod-{minutes}", "creationTimestamp": created}
    return {"metadata": metadata, "status": {"phase": phase, **containers, **more}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def seen(*pods: Any, **others: Any) -> CacheObservation:
    return replace(CacheObservation(generation=3, job=job(), pods=pods), **others)


def said(status: CacheStatus) -> dict[str, str]:
    """Give the conditions as `TrueReason`, by type."""
    return {c.type: f"{c.status}{c.reason}" for c in status.conditions or ()}


def message(status: CacheStatus, kind: str = "Cached") -> str:
    return next(c.message for c in status.conditions or () if c.type == kind)


RUNS = pod("Running", {"running": {"startedAt": "2026-01-02T03:00:00Z"}})
DONE = pod("Succeeded", ended(0, FETCHED.to_text(), "Completed"))
BROKE_OFF = pod("Failed", ended(1, report(FetchResult.FETCH_FAILED, "It broke off.")), 5)
NO_SECRET = {
    "waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
}
CLAIM_REFUSED = "PATCH .../weights-cache: 422: field can not be less than previous value"
NO_NODE = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    ]
}


@pytest.mark.parametrize(
    ("observed", "cached", "progressing", "degraded", "words"),
    [
        (seen(job=None), "FalseFetching", "TrueFetching", "FalseHealthy", "about to be created"),
        (seen(), "FalseFetching", "TrueFetching", "FalseHealthy", "Job/weights-fetch-0 fetches"),
        (seen(RUNS), "FalseFetching", "TrueFetching", "FalseHealthy", "pod's log says how far"),
        (
            seen(BROKE_OFF, RUNS), "FalseFetching", "TrueFetching", "FalseHealthy",
            "It is tried again. The last attempt: It broke off.",
        ),
        (
            seen(pod("Pending", None, 1, **NO_NODE)), "FalseFetching", "TrueFetching",
            "FalseHealthy", "0/3 nodes are available",
        ),
        (
            seen(pod("Pending", None, 16, **NO_NODE)), "FalseFetching", "TrueFetching",
            "TrueStuck", "0/3 nodes are available",
        ),
        (
            seen(pod("Pending", NO_SECRET)), "FalseSecretMissing", "FalseSecretMissing",
            "TrueSecretMissing", 'secret "hub" not found',
        ),
        (seen(DONE, job=job(Complete="")), "TrueFetched", "FalseSettled", "FalseHealthy", ""),
        (seen(job=job(Complete="")), "TrueFetched", "FalseSettled", "FalseHealthy", ""),
        (
            seen(
                BROKE_OFF, pod("Failed", ended(2, report(FetchResult.FETCH_FAILED))),
                job=job(Failed="Container failed"),
            ),
            "FalseFetchFailed", "FalseFetchFailed", "TrueFetchFailed",
            "The hub answered 404. A change of the spec is tried at once; if something else was "
            "wrong, delete Job/weights-fetch-0",
        ),
        (
            seen(
                pod("Failed", ended(2, report(FetchResult.DIGEST_MISMATCH, "Others."))),
                job=job(Failed="", FailureTarget=""),
            ),
            "FalseDigestMismatch", "FalseDigestMismatch", "TrueDigestMismatch", "Others.",
        ),
        (
            seen(
                pod("Failed", ended(2, report(FetchResult.SECRET_MISSING, "No login."))),
                job=job(FailureTarget=""),
            ),
            "FalseSecretMissing", "FalseSecretMissing", "TrueSecretMissing", "No login.",
        ),
        (
            seen(
                pod("Failed", ended(137, "Traceback\n" * 999 + "the end", "OOMKilled")),
                job=job(Failed="")
            ),
            "FalseFetchFailed", "FalseFetchFailed", "TrueFetchFailed",
            "Pod/pod-0 ended with OOMKilled, exit code 137.",
        ),
        (
            seen(job=job(Failed="Job was active longer than allowed.")),
            "FalseFetchFailed", "FalseFetchFailed", "TrueFetchFailed", "active longer",
        ),
        (
            seen(job=None, failure=CLAIM_REFUSED), "FalseApplyFailed", "FalseApplyFailed",
            "TrueApplyFailed", "field can not be less than previous value",
        ),
        (
            seen(job=job(Complete=""), failure=CLAIM_REFUSED), "TrueFetched", "FalseSettled",
            "TrueApplyFailed", "",
        ),
        (
            seen(RUNS, refusal=REFUSED), "FalseHeld", "FalseHeld", "FalseHealthy",
            "Accepted is False: spec.source is empty. Set one.",
        ),
    ],
    ids=[
        "first-sight", "no-pod-yet", "runs", "tried-again", "no-node", "no-node-for-long",
        "no-secret", "fetched", "fetched-pod-is-gone", "gives-up", "other-files", "no-login",
        "crash", "deadline", "no-claim", "claim-cannot-grow", "refused",
    ],
)  # fmt: skip
def test_conditions_of_a_cache(
    observed: CacheObservation, cached: str, progressing: str, degraded: str, words: str
) -> None:
    status = cache_status(CACHE, observed, NOW)
    found = said(status)
    assert list(found) == [
        "Accepted", "Cached", "Verified", "Progressing", "Ready", "Warm", "Degraded",
    ]  # fmt: skip
    assert found["Accepted"] == ("FalseInvalid" if observed.refusal else "TrueValid")
    assert (found["Cached"], found["Ready"], found["Warm"]) == (cached, cached, cached)
    assert (found["Progressing"], found["Degraded"]) == (progressing, degraded)
    assert words in message(status)
    assert len(message(status)) < 4096
    assert status.observed_generation == 3
    assert status.claim_name == "weights-cache"


def test_what_was_fetched_is_kept_when_its_pod_is_cleaned_up() -> None:
    done = cache_status(CACHE, seen(BROKE_OFF, DONE, job=job(Complete="")), NOW)
    assert (done.cached_bytes, done.wanted_bytes, done.revision) == (1234, 1234, "b" * 40)
    assert (done.weights_digest, done.tokenizer_digest) == ("c" * 64, "d" * 64)
    later = NOW + timedelta(days=9)
    again = cache_status(CACHE, seen(job=job(Complete=""), previous=done), later)
    assert again == done, "nothing changed, so nothing is written"


def test_an_unreadable_cache_has_a_status_too() -> None:
    status = cache_status(None, CacheObservation(generation=1, refusal=REFUSED), NOW)
    assert said(status)["Accepted"] == "FalseInvalid"
    assert status.claim_name is None


def test_where_no_claim_is_made_none_is_named() -> None:
    (folder,) = parse_manifests(
        f"{HEAD}kind: ModelCache\nmetadata: {{name: a}}\n"
        "spec: {source: {path: {folder: /models}}}\n"
    ).caches
    assert cache_status(folder, seen(), NOW).claim_name is None


@pytest.mark.parametrize(
    ("observed", "serves", "cached", "progressing"),
    [
        (seen(RUNS), False, "FalseFetching", "TrueFetching"),
        (seen(DONE, job=job(Complete="")), True, "TrueFetched", "TrueStarting"),
        (seen(pod("Pending", NO_SECRET)), False, "FalseSecretMissing", "FalseHeld"),
        (seen(refusal=REFUSED), False, "FalseHeld", "FalseHeld"),
    ],
    ids=["fetching", "fetched", "no-secret", "refused"],
)
def test_a_model_waits_for_its_cache(
    observed: CacheObservation, serves: bool, cached: str, progressing: str
) -> None:
    verdict = cached_verdict("weights", cache_status(CACHE, observed, NOW))
    assert verdict.message.startswith("ModelCache/weights: ")
    model = ModelObservation(generation=1, cached=verdict, serve_answers=True)
    status = model_status(MODEL, model, Impact.NO_CHANGE, NOW)
    found = {c.type: f"{c.status}{c.reason}" for c in status.conditions or ()}
    assert (found["Cached"], found["Progressing"]) == (cached, progressing)
    assert may_serve(status) is serves


def test_a_model_waits_for_a_cache_that_was_not_looked_at() -> None:
    for status in (None, CacheStatus()):
        verdict = cached_verdict("weights", status)
        assert (verdict.status, verdict.reason) == (Truth.FALSE, Reason.FETCHING)


def test_every_result_is_a_reason_that_is_documented() -> None:
    assert {str(each) for each in FetchResult} <= {str(each) for each in Reason}
