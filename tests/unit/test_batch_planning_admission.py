"""Who may join the queue, and when a refused caller should come back."""

import pytest

from embedfleet.batching.admission import Demand, QueueState, admit
from embedfleet.batching.planner import Limits
from embedfleet.batching.throughput import Throughput
from embedfleet.errors import DeadlineExceeded, Overloaded, TooLarge

LIMITS = Limits(
    max_batch_tokens=100,
    max_interactive_tokens=40,
    max_queued_tokens=1_000,
    max_queued_items=10,
)
NOW = 50.0


@pytest.mark.parametrize(
    ("demand", "queue", "kind", "retry"),
    [
        pytest.param(Demand(1, 10), QueueState(0, 0, 0, None), None, None, id="empty queue"),
        pytest.param(Demand(1, 10), QueueState(9, 990, 990, 1e2), None, None, id="just fits"),
        pytest.param(
            Demand(1, 110),
            QueueState(3, 990, 990, 50.0),
            Overloaded,
            2.0,
            id="100 tokens too many at 50 a second",
        ),
        pytest.param(
            Demand(5, 110),
            QueueState(3, 990, 990, 50.0),
            Overloaded,
            2.0,
            id="a batch gets the same answer",
        ),
        pytest.param(
            Demand(2, 2),
            QueueState(10, 500, 500, 50.0),
            Overloaded,
            2.0,
            id="2 items of 50 tokens must leave first",
        ),
        pytest.param(
            Demand(1, 110),
            QueueState(3, 990, 990, None),
            Overloaded,
            1.0,
            id="a second before speed is known",
        ),
        pytest.param(
            Demand(1, 2), QueueState(3, 999, 999, 1e6), Overloaded, 0.05, id="hint has a floor"
        ),
        pytest.param(
            Demand(1, 900), QueueState(3, 990, 990, 1.0), Overloaded, 60.0, id="and a ceiling"
        ),
        pytest.param(Demand(11, 11), QueueState(0, 0, 0, 1.0), TooLarge, None, id="never: items"),
        pytest.param(
            Demand(1, 1_001), QueueState(0, 0, 0, 1.0), TooLarge, None, id="never: tokens"
        ),
        pytest.param(
            Demand(1, 1, NOW), QueueState(0, 0, 0, None), DeadlineExceeded, None, id="already late"
        ),
        pytest.param(
            Demand(1, 1, NOW + 3),
            QueueState(5, 500, 500, 100.0),
            Overloaded,
            2.0,
            id="5 s to wait and 3 s left: in 2 s it would do",
        ),
        pytest.param(
            Demand(1, 1, NOW + 6), QueueState(5, 500, 500, 100.0), None, None, id="in time"
        ),
        pytest.param(
            Demand(1, 1, NOW + 1),
            QueueState(5, 500, 50, 100.0),
            None,
            None,
            id="what is not ahead does not count",
        ),
    ],
)
def test_admission(demand, queue, kind, retry):
    refusal = admit(demand, queue, LIMITS, NOW)
    if kind is None:
        assert refusal is None
        return
    assert type(refusal) is kind
    assert refusal.retry_after_seconds == (retry and pytest.approx(retry))
    assert len(refusal.message.split()) > 8, "names value, limit and next move"


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [
        ([(1_000, 1.0)], 999, 1_001),
        ([(1_000, 1.0), (1_000, 3.0)], 495, 505),
        ([(4_096, 2.0)] + [(20, 0.06)] * 20, 1_800, 2_048),
        ([(4_096, 2.0)] + [(4_096, 8.0)] * 100, 512, 514),
    ],
    ids=["one step", "mean of equals", "short queries hardly count", "old steps fade"],
)
def test_throughput(steps, low, high):
    throughput = Throughput()
    assert throughput.tokens_per_second is None
    for num_tokens, seconds in steps:
        throughput.add(num_tokens, seconds)
    assert low <= throughput.tokens_per_second <= high
