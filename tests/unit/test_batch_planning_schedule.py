"""The batcher's state stepped through with a made-up clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.batching.lanes import Work
from embedfleet.batching.planner import Limits
from embedfleet.batching.schedule import Schedule
from embedfleet.errors import Overloaded, TooLarge
from embedfleet.messages import Priority

LIMITS = Limits(
    max_batch_tokens=100,
    max_interactive_tokens=40,
    max_queued_tokens=100_000,
    max_queued_items=1_000,
)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
NEVER = float("inf")


def work(*lengths, priority=BULK, at=0.0, deadline=NEVER, prefix=0):
    return Work(
        [np.ones(n, np.int64) for n in lengths],
        np.ones(prefix, np.int64) if prefix else None,
        priority,
        at,
        deadline,
    )


def lengths(step):
    return [pending.num_tokens for _, pending in step.parts]


def computed(schedule):
    """Run all that waits; return the tokens of each step."""
    steps = []
    while (step := schedule.next_step(0.0)) is not None:
        steps.append(step.pack().num_tokens)
        schedule.settle([(step, rows(step))], 0.1, 1.0)
    return steps


def measured(tokens_per_second):
    schedule = Schedule(LIMITS)
    schedule.throughput.add(1_000_000, 1_000_000 / tokens_per_second)
    return schedule


def rows(step):
    return np.array([len(step.parts)] * len(step.parts), np.float32)


@pytest.mark.parametrize(
    ("newcomer", "hint"),
    [
        pytest.param(work(300, deadline=NEVER), None, id="no deadline, any wait"),
        pytest.param(work(300, deadline=5.0), None, id="20 s of longer work are not ahead of it"),
        pytest.param(work(3_000, deadline=19.0), None, id="its deadline is the more urgent"),
        pytest.param(work(3_000, deadline=30.0), None, id="in time even behind the other"),
        pytest.param(work(10, priority=INTERACTIVE, deadline=0.1), None, id="a query overtakes"),
        pytest.param(work(500, deadline=4.0), 1.0, id="5 s of more urgent work are"),
    ],
)
def test_only_what_is_ahead_counts_against_a_deadline(newcomer, hint):
    schedule = measured(100)
    schedule.add(work(*[100] * 20))
    if hint is None:
        schedule.add(newcomer)
        return
    schedule.add(work(*[100] * 5, deadline=3.0))
    with pytest.raises(Overloaded, match="deadline leaves") as refused:
        schedule.add(newcomer)
    assert refused.value.retry_after_seconds == pytest.approx(hint)


def test_a_running_step_counts_against_a_bulk_deadline_only():
    schedule = measured(100)
    schedule.running_tokens = 1_000
    schedule.add(work(10, priority=INTERACTIVE, deadline=1.0))
    with pytest.raises(Overloaded):
        schedule.add(work(10, priority=BULK, deadline=1.0))


def test_shorter_requests_first_until_the_longer_has_waited_its_own_length():
    schedule = measured(100)
    schedule.add(work(90, 90, 90))
    schedule.add(work(80, at=1.0))
    schedule.add(work(70, at=2.5))
    assert [lengths(schedule.next_step(3.0)) for _ in range(5)] == [[80], [90], [90], [90], [70]]


def test_a_full_step_is_prepared_ahead_and_comes_next():
    schedule = Schedule(LIMITS)
    schedule.add(work(60, 40))
    assert lengths(schedule.prepare(0.0)) == [60, 40]
    assert schedule.prepare(0.0) is None, "one step ahead is enough"
    assert (schedule.num_items, schedule.num_tokens) == (2, 100), "it still waits"
    schedule.add(work(10, at=0.0, deadline=0.5))
    assert lengths(schedule.next_step(0.1)) == [60, 40]
    assert lengths(schedule.next_step(0.1)) == [10]


def test_interactive_work_goes_before_the_prepared_step():
    schedule = Schedule(LIMITS)
    schedule.add(work(60, 40))
    schedule.prepare(0.0)
    schedule.add(work(5, priority=INTERACTIVE))
    assert [lengths(schedule.next_step(0.0)) for _ in range(2)] == [[5], [60, 40]]


def test_what_does_not_fill_a_step_is_not_prepared():
    schedule = Schedule(LIMITS)
    schedule.add(work(60, 39))
    assert schedule.prepare(0.0) is None


@pytest.mark.parametrize("change", ["cancel", "reconfigure", "deadline"])
def test_a_prepared_step_is_undone_when_it_no_longer_holds(change):
    schedule = Schedule(LIMITS)
    first = schedule.add(work(60, deadline=5.0))
    schedule.add(work(30, 10, 10))
    assert lengths(schedule.prepare(0.0)) == [60, 30, 10]
    if change == "cancel":
        schedule.withdraw(first)
    if change == "reconfigure":
        schedule.reconfigure(Limits(70, 40, 1_000, 100))
    step = schedule.next_step(6.0 if change == "deadline" else 1.0)
    assert lengths(step) == ([60, 10] if change == "reconfigure" else [30, 10, 10])
    assert schedule.take_expired() == ([first] if change == "deadline" else [])


def test_parts_of_a_request_in_two_steps_become_one_result():
    schedule = Schedule(LIMITS)
    request = schedule.add(work(90, 20, 80, 10))
    first, second = schedule.next_step(1.0), schedule.next_step(1.0)
    first.pack(), second.pack()
    assert (lengths(first), lengths(second)) == ([90, 10], [80, 20])
    assert schedule.settle([(first, np.array([90, 10], np.float32))], 2.0, 3.0) == []
    [(serial, submitted)] = schedule.settle([(second, np.array([80, 20], np.float32))], 3.0, 9.0)
    assert serial == request.serial
    assert submitted.rows.tolist() == [90, 20, 80, 10]
    assert (submitted.compute_seconds, submitted.queue_seconds) == (5.0, 4.0)


@pytest.mark.parametrize(
    ("texts", "num_steps"), [((5, 6), 1), ((90, 20), 2)], ids=["a whole request", "a part of one"]
)
def test_what_is_put_back_waits_as_before(texts, num_steps):
    schedule = Schedule(LIMITS)
    schedule.add(work(*texts, prefix=7))
    before = (schedule.num_items, schedule.num_tokens)
    step = schedule.next_step(0.0)
    schedule.restore(step)
    assert (schedule.num_items, schedule.num_tokens) == before == (2, sum(texts) + 7 * num_steps)
    assert lengths(schedule.next_step(0.0)) == lengths(step)


@pytest.mark.parametrize(
    ("budget", "prefix", "texts", "num_steps"),
    [
        pytest.param(1_024, 100, [50] * 100, 6, id="a short prefix: 18 beside it"),
        pytest.param(1_024, 900, [50] * 100, 6, id="near the budget: 18 and not 2"),
        pytest.param(1_024, 1_100, [50] * 100, 5, id="over the budget: 22 and not 1"),
        pytest.param(1_024, 900, [200] * 100, 25, id="longer texts: 4 and not 1"),
        pytest.param(1_024, 1_100, [1_200] * 5, 5, id="texts longer than the prefix"),
        pytest.param(16_384, 16_300, [200] * 200, 3, id="of a GPU: 81 and not 1"),
    ],
)
def test_a_request_is_admitted_as_what_its_steps_compute(budget, prefix, texts, num_steps):
    schedule = Schedule(Limits(budget, budget // 2, 10_000_000, 1_000))
    request = schedule.add(work(*texts, prefix=prefix))
    assert request.num_tokens == schedule.num_tokens == num_steps * prefix + sum(texts)
    steps = computed(schedule)
    assert (len(steps), sum(steps)) == (num_steps, request.num_tokens)
    assert max(steps) <= max(budget, 2 * prefix, prefix + max(texts))


def test_what_waits_costs_less_with_every_step():
    schedule = Schedule(LIMITS)
    schedule.add(work(*[10] * 20, prefix=90))
    left = [schedule.num_tokens]
    while (step := schedule.next_step(0.0)) is not None:
        left.append(schedule.num_tokens)
        assert left[-2] - left[-1] == step.pack().num_tokens
    assert left == [470, 290, 110, 0]


def test_a_prefix_in_many_steps_counts_against_the_queue():
    limits = Limits(100, 40, max_queued_tokens=469, max_queued_items=1_000)
    with pytest.raises(TooLarge, match="470 tokens"):
        Schedule(limits).add(work(*[10] * 20, prefix=90))


@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=60),
    st.integers(1, 400),
    st.integers(50, 300),
)
def test_a_prefix_never_costs_more_than_twice_what_continues_it(texts, prefix, budget):
    """Each step but the last is filled with at least half as many tokens as the prefix has."""
    schedule = Schedule(Limits(budget, 1, 1_000_000, 1_000))
    schedule.add(work(*texts, prefix=prefix))
    steps = computed(schedule)
    assert sum(steps) <= prefix + 3 * sum(texts)
    assert max(steps) <= max(budget, 2 * prefix, prefix + max(texts))


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.integers(1, 60), min_size=1, max_size=6),
            st.integers(0, 130),
            st.sampled_from(Priority),
        ),
        st.tuples(st.sampled_from(["run", "put back", "prepare", "query", "reconfigure"])),
        st.tuples(st.just("withdraw"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(actions)
def test_nothing_is_lost_run_twice_or_miscounted(actions):
    schedule, given_, answered, withdrawn = Schedule(LIMITS), {}, {}, set()
    steps_left = 10_000

    def run(step):
        if step is not None:
            step.pack()
            for serial, submitted in schedule.settle([(step, rows(step))], 0.1, 1.0):
                assert serial not in answered
                answered[serial] = len(submitted.rows)

    for action, *values in actions:
        if action == "add":
            texts, prefix, priority = values
            request = schedule.add(work(*texts, prefix=prefix, priority=priority))
            given_[request.serial] = request
        elif action == "run":
            run(schedule.next_step(0.0))
        elif action == "query":
            run(schedule.next_interactive(0.0))
        elif action == "put back" and (step := schedule.next_step(0.0)):
            schedule.restore(step)
        elif action == "prepare":
            schedule.prepare(0.0)
        elif action == "reconfigure":
            schedule.reconfigure(LIMITS)
        elif action == "withdraw" and values[0] in given_:
            if values[0] not in answered:
                withdrawn.add(values[0])
            schedule.withdraw(given_[values[0]])
        assert schedule.num_items == sum(
            r.unfinished for serial, r in given_.items() if serial not in withdrawn
        )
    while (step := schedule.next_step(0.0)) is not None and steps_left:
        steps_left -= 1
        run(step)
    assert answered == {
        serial: len(r.work.sequences) for serial, r in given_.items() if serial not in withdrawn
    }
    lanes = (schedule.interactive, schedule.bulk)
    assert [(lane.num_items, lane.num_tokens) for lane in lanes] == [(0, 0), (0, 0)]
    assert not schedule.requests
