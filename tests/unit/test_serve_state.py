"""Serve's own answer about an application, read as people need it."""

from __future__ import annotations

from typing import Any

import pytest

from embedfleet.rendering.serve_state import ScaleDecision, summarize

TRACEBACK = (
    "The deployment failed to start 3 times in a row. Error:\n"
    "ray::ServeReplica.initialize() (pid=7)\n"
    "embedfleet.errors.CheckpointError: config.json of /models/x is missing. Check the path.\n"
)


def replica(state: str, pid: int | None = 1) -> dict[str, Any]:
    return {"state": state, "pid": pid}


def application(**deployment: Any) -> dict[str, Any]:
    own = {"target_num_replicas": 1, "replicas": [], "message": ""} | deployment
    return {"status": "RUNNING", "message": "", "deployments": {"embedder": own}}


@pytest.mark.parametrize(
    ("replicas", "pids", "live"),
    [
        ([], (), 0),
        ([replica("RUNNING", 7)], (7,), 1),
        ([replica("RUNNING", 7), replica("STARTING", 8)], (7,), 2),
        ([replica("STOPPING", 7)], (), 0),
        ([replica("RUNNING", None)], (), 1),
    ],
    ids=["none", "runs", "one-starts", "stops", "no-pid-yet"],
)
def test_replicas_are_counted(
    replicas: list[dict[str, Any]], pids: tuple[int, ...], live: int
) -> None:
    found = summarize("emb-docs", application(replicas=replicas))
    assert (found.pids, found.live_replicas) == (pids, live)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (TRACEBACK, "CheckpointError: config.json of /models/x is missing. Check the path."),
        ("Deploying app 'x' failed.\n", "Deploying app 'x' failed."),
        ("", ""),
    ],
    ids=["own-error", "serves-words", "nothing"],
)
def test_cause_is_the_replicas_own_error(message: str, expected: str) -> None:
    assert summarize("emb-docs", application(message=message)).message == expected


def test_last_scale_is_the_latest_that_changed_the_number() -> None:
    def decision(time: float, before: int, after: int) -> dict[str, Any]:
        return {
            "timestamp_s": time,
            "prev_num_replicas": before,
            "curr_num_replicas": after,
            "reason": f"at {time}",
        }

    decisions = [decision(2.0, 1, 3), decision(1.0, 0, 1), decision(3.0, 3, 3)]
    found = summarize("emb-docs", application(autoscaling_detail={"decisions": decisions}))
    assert found.last_scale == ScaleDecision(2.0, 1, 3, "at 2.0")
    assert summarize("emb-docs", application(autoscaling_detail=None)).last_scale is None


@pytest.mark.parametrize("count", [-1, 1_000_001, 1e21, "x", None])
def test_what_is_no_number_of_replicas_is_no_answer_of_serve(count: Any) -> None:
    decision = {"timestamp_s": 1.0, "prev_num_replicas": 1, "curr_num_replicas": count}
    answer = application(autoscaling_detail={"decisions": [decision | {"reason": "load"}]})
    with pytest.raises((TypeError, ValueError)):
        summarize("emb-docs", answer)


def test_text_is_what_a_person_needs() -> None:
    running = application(replicas=[replica("RUNNING")], target_num_replicas=2)
    assert str(summarize("emb-docs", running)) == "emb-docs: running, 1 of 2 replicas"
