"""What runs next: order, budget, deadlines, and that nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.batching.planner import Limits, Pending, Waiting, cost, lane, plan, urgency
from embedfleet.messages import Priority

LIMITS = Limits(
    max_batch_tokens=100,
    max_interactive_tokens=40,
    max_queued_tokens=10_000,
    max_queued_items=1_000,
    max_interactive_streak=3,
    max_skipped=5,
)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def items(*num_tokens, first=0, **fields):
    return [Pending(first + i, 0, n, **fields) for i, n in enumerate(num_tokens)]


def ran(decided):
    return [pending.request for pending in decided.run]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([], [], id="nothing waits"),
        pytest.param([60, 40, 1], [0, 1], id="filled to the token"),
        pytest.param([60, 50, 30], [0, 2], id="a misfit is skipped, not waited for"),
        pytest.param([101, 1], [0], id="over the whole budget runs alone"),
        pytest.param([1, 101, 1], [0, 2], id="over the budget does not join others"),
        pytest.param([100, 1], [0], id="no room left"),
        pytest.param([99, 2, 2, 2, 2, 2, 1], [0], id="looks past a bounded number of misfits"),
        pytest.param([99, 2, 2, 2, 2, 1], [0, 5], id="one misfit fewer is looked past"),
    ],
)
def test_filling_a_step_in_order(lengths, expected):
    decided = plan(Waiting(bulk=items(*lengths)), LIMITS, now=0.0)
    assert ran(decided) == expected
    assert decided.priority == (BULK if expected else None)


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        pytest.param(
            items(20, 20, 20, prefix=b"q", prefix_tokens=40), [0, 1, 2], id="counted once: 40 + 60"
        ),
        pytest.param(
            items(20, prefix=b"q", prefix_tokens=40)
            + items(20, first=1, prefix=b"r", prefix_tokens=40)
            + items(20, first=2, prefix=b"q", prefix_tokens=40),
            [0, 2],
            id="another prefix costs its own tokens",
        ),
        pytest.param(
            items(50, prefix=b"q", prefix_tokens=60) + items(1, first=1),
            [0],
            id="over the budget only with its prefix: alone",
        ),
    ],
)
def test_a_shared_prefix_counts_once_a_step(pending, expected):
    assert ran(plan(Waiting(bulk=pending), LIMITS, now=0.0)) == expected


def sharing(*num_tokens, first=0, prefix=b"q", prefix_tokens=90):
    return items(*num_tokens, first=first, prefix=prefix, prefix_tokens=prefix_tokens)


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        pytest.param(sharing(*[10] * 12), list(range(9)), id="90 beside a prefix of 90"),
        pytest.param(sharing(*[50] * 5, prefix_tokens=300), list(range(5)), id="longer than steps"),
        pytest.param(sharing(*[10] * 9, prefix_tokens=50), list(range(5)), id="half is no more"),
        pytest.param(sharing(95, 1), [0], id="full with its first"),
        pytest.param(sharing(10, 10) + items(1, first=9), [0, 1], id="not for what has no prefix"),
        pytest.param(
            sharing(10, 10) + sharing(5, first=9, prefix=b"r", prefix_tokens=5),
            [0, 1],
            id="nor for what has another",
        ),
        pytest.param(
            sharing(20, prefix=b"r", prefix_tokens=30) + sharing(10, first=1, prefix_tokens=60),
            [0],
            id="a prefix that does not fit is not begun",
        ),
        pytest.param(
            items(5) + sharing(5, 40, 50, first=1),
            [0, 1, 2],
            id="twice the prefix holds for all of the step",
        ),
    ],
)
def test_a_bulk_step_grows_around_a_long_prefix(pending, expected):
    assert ran(plan(Waiting(bulk=pending), LIMITS, now=0.0)) == expected


def test_an_interactive_step_grows_around_no_prefix():
    pending = sharing(5, 5, 5, prefix_tokens=30)
    assert ran(plan(Waiting(interactive=pending), LIMITS, now=0.0)) == [0, 1]


@pytest.mark.parametrize(
    ("count", "num_tokens", "prefix", "room", "expected"),
    [
        pytest.param(5, 70, 0, 100, 70, id="no prefix"),
        pytest.param(1, 20, 40, 60, 60, id="one"),
        pytest.param(3, 60, 40, 60, 100, id="one step to the token"),
        pytest.param(4, 80, 40, 60, 160, id="two"),
        pytest.param(4, 160, 40, 60, 320, id="one a step: two of 40 are over 60"),
        pytest.param(3, 300, 40, 60, 420, id="each over the room runs alone"),
        pytest.param(0, 0, 40, 60, 0, id="nothing left, no prefix either"),
    ],
)
def test_cost_counts_the_prefix_once_a_step(count, num_tokens, prefix, room, expected):
    assert cost(count, num_tokens, prefix, room) == expected


@pytest.mark.parametrize(
    ("interactive", "bulk", "streak", "priority", "next_streak"),
    [
        pytest.param(1, 1, 0, INTERACTIVE, 1, id="interactive first"),
        pytest.param(1, 1, 2, INTERACTIVE, 3, id="still within the streak"),
        pytest.param(1, 1, 3, BULK, 0, id="bulk is owed a step"),
        pytest.param(1, 0, 3, INTERACTIVE, 4, id="owed, but no bulk waits"),
        pytest.param(0, 1, 0, BULK, 0, id="bulk alone"),
        pytest.param(0, 0, 3, None, 3, id="nothing waits"),
    ],
)
def test_interactive_before_bulk(interactive, bulk, streak, priority, next_streak):
    waiting = Waiting(items(*[10] * interactive), items(*[10] * bulk, first=9), streak)
    decided = plan(waiting, LIMITS, now=0.0)
    assert (decided.priority, decided.streak) == (priority, next_streak)
    assert decided.reasons


def test_an_interactive_step_has_its_own_budget_and_no_bulk_in_it():
    decided = plan(Waiting(items(30, 20, 10), items(1, first=9)), LIMITS, now=0.0)
    assert ran(decided) == [0, 2]


@pytest.mark.parametrize(
    ("deadline", "run", "expired"),
    [
        pytest.param(9.9, [1], [0], id="past"),
        pytest.param(10.0, [1], [0], id="exactly now leaves no time to compute"),
        pytest.param(10.1, [0, 1], [], id="to come"),
    ],
)
def test_what_is_past_its_deadline_never_runs(deadline, run, expired):
    pending = [Pending(0, 0, 5, deadline), Pending(1, 0, 5)]
    decided = plan(Waiting(interactive=pending), LIMITS, now=10.0)
    assert ran(decided) == run
    assert [p.request for p in decided.expired] == expired


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ((0.0, 99.0, 10), (1.0, 99.0, 10), "older"),
        ((1.0, 2.0, 10), (0.0, 99.0, 300), "earlier deadline"),
        ((1.0, 99.0, 10), (0.0, 99.0, 300), "shorter: the other has not waited 3 s yet"),
        ((0.0, 99.0, 300), (3.0, 99.0, 10), "longer, but it has waited out its own length"),
    ],
)
def test_urgency(first, second, why):
    assert urgency(*first, 100.0) < urgency(*second, 100.0), why


def test_urgency_is_age_before_any_speed_is_known():
    assert urgency(5.0, float("inf"), 1_000_000, None) == 5.0


@pytest.mark.parametrize(
    ("priority", "num_tokens", "expected"),
    [
        (INTERACTIVE, 40, INTERACTIVE),
        (INTERACTIVE, 41, BULK),
        (BULK, 1, BULK),
    ],
)
def test_the_lane_follows_cost(priority, num_tokens, expected):
    assert lane(priority, num_tokens, LIMITS) == expected


@pytest.mark.parametrize("field", ["max_batch_tokens", "max_queued_items", "stuck_after_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_must_be_positive(field, value):
    values = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__}
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Limits(**{**values, field: value})


lengths = st.lists(st.integers(1, 130), min_size=1, max_size=40)


@given(lengths)
def test_a_step_keeps_its_budget_unless_one_item_exceeds_it(lengths):
    run = plan(Waiting(bulk=items(*lengths)), LIMITS, now=0.0).run
    assert run[0].request == 0
    assert sum(p.num_tokens for p in run) <= LIMITS.max_batch_tokens or len(run) == 1


@given(
    bulk=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 130)), min_size=1, max_size=30),
)
def test_nothing_starves(bulk):
    """Every step takes a second, interactive work always waits, and bulk arrives over time.

    An item may be overtaken only by items with an earlier turn, each of which costs at most one
    bulk step with its streak of interactive ones before it.
    """
    arrivals = [
        (at, urgency(at, float("inf"), tokens, 50.0), Pending(i, 0, tokens))
        for i, (at, tokens) in enumerate(bulk)
    ]
    round_steps = LIMITS.max_interactive_streak + 1
    waiting, ran_at, streak, now = [], {}, 0, 0
    while len(ran_at) < len(arrivals):
        waiting += [(turn, p) for at, turn, p in arrivals if at == now]
        waiting.sort()
        decided = plan(
            Waiting(items(40, first=1_000), [p for _, p in waiting], streak), LIMITS, now
        )
        streak = decided.streak
        if decided.priority is BULK:
            ran_at |= {p.request: now for p in decided.run}
            waiting = [(turn, p) for turn, p in waiting if p.request not in ran_at]
        now += 1
    for at, turn, pending in arrivals:
        earlier = sum((t, p) < (turn, pending) for _, t, p in arrivals)
        assert ran_at[pending.request] - at <= round_steps * (earlier + 1)
