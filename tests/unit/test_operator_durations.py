"""How long changes took, as statuses that follow one another tell it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from embedfleet.rendering.plan import Change, Impact, Plan
from embedfleet_operator.crds.status import FleetStatus, Truth
from embedfleet_operator.planning.durations import timed, told

NOTHING = Plan()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_plan(impact: Impact) -> Plan:
    return Plan((Change("Embedder/docs", "spec.x", 1, 2, impact, "Because."),))


def after(
    status: FleetStatus, seconds: float, plan: Plan = NOTHING, progressing: Truth = Truth.TRUE
) -> FleetStatus:
    changing, last = timed(status, plan, progressing, NOON + timedelta(seconds=seconds))
    return FleetStatus(changing=changing, last_changes=last)


def taken(status: FleetStatus) -> dict[str, int | None]:
    return {each.impact: each.seconds for each in status.last_changes or ()}


def test_a_change_lasts_until_nothing_is_on_its_way() -> None:
    status = after(FleetStatus(), 0, a_plan(Impact.ROLL_REPLICAS))
    assert status.changing is not None
    assert taken(status) == {}
    status = after(status, 30)
    assert taken(status) == {}
    status = after(status, 41, progressing=Truth.FALSE)
    assert status.changing is None
    assert taken(status) == {"RollReplicas": 41}
    assert after(status, 99, progressing=Truth.FALSE) == status


def test_not_knowing_ends_no_change() -> None:
    status = after(FleetStatus(), 0, a_plan(Impact.RESTART_APP))
    assert after(status, 20, progressing=Truth.UNKNOWN) == status


def test_a_graver_change_on_top_makes_one_of_both() -> None:
    status = after(FleetStatus(), 0, a_plan(Impact.RECONFIGURE))
    status = after(status, 10, a_plan(Impact.RESTART_APP))
    status = after(status, 15, a_plan(Impact.RECONFIGURE))
    assert taken(after(status, 60, progressing=Truth.FALSE)) == {"RestartApp": 60}


def test_each_class_keeps_its_last() -> None:
    status = FleetStatus()
    for start, end, impact in ((0, 5, Impact.RECONFIGURE), (10, 40, Impact.START),
                               (50, 52, Impact.RECONFIGURE)):  # fmt: skip
        status = after(status, start, a_plan(impact))
        status = after(status, end, progressing=Truth.FALSE)
    assert taken(status) == {"Reconfigure": 2, "Start": 30}


def test_a_plan_says_how_long_the_last_of_its_class_took() -> None:
    status = after(FleetStatus(), 0, a_plan(Impact.ROLL_REPLICAS))
    status = after(status, 41, progressing=Truth.FALSE)
    said = told(a_plan(Impact.ROLL_REPLICAS), status)
    assert said.endswith("RollReplicas took 41 s the last time.")
    other = a_plan(Impact.NEW_CLUSTER)
    assert told(other, status) == str(other)
