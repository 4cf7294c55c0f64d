"""When a failed request is tried again, and how calls are refused before they are sent."""

import pytest

from embedfleet import errors
from embedfleet.client import ClientConfig
from embedfleet.client.attempts import seconds_for
from embedfleet.client.options import embed_options, rerank_options, seconds
from embedfleet.client.retrying import Deadline, retry_delay
from embedfleet.messages import InputType, OutputType, Priority, Truncation


@pytest.mark.parametrize(
    ("error", "attempt", "jitter", "delay", "why"),
    [
        (errors.InvalidRequest("x"), 1, 0.0, None, "never the same again"),
        (errors.TooLarge("x"), 1, 0.0, None, "never smaller again"),
        (errors.DeadlineExceeded("x"), 1, 0.0, None, "no time left"),
        (errors.Unavailable("x"), 1, 0.0, 0.05, "half the backoff at least"),
        (errors.Unavailable("x"), 1, 1.0, 0.1, "the whole backoff at most"),
        (errors.Unavailable("x"), 3, 1.0, 0.4, "doubled each time"),
        (errors.Unavailable("x"), 30, 1.0, None, "given up"),
        (errors.Overloaded("x", retry_after_seconds=2.0), 1, 0.0, 2.0, "never before the hint"),
        (errors.Overloaded("x", retry_after_seconds=2.0), 1, 1.0, 2.5, "a quarter later at most"),
        (errors.Overloaded("x", retry_after_seconds=0.1), 4, 0.0, 0.8, "hints too short grow"),
        (errors.Overloaded("x", retry_after_seconds=2.0), 99, 0.0, 5.0, "hints have no end"),
        (errors.Overloaded("x", retry_after_seconds=0.0), 1, 0.0, 0.1, "never a busy loop"),
    ],
)
def test_the_delay_before_the_next_attempt(error, attempt, jitter, delay, why):
    assert retry_delay(error, attempt, 5, jitter) == (
        None if delay is None else pytest.approx(delay)
    ), why


def test_backoff_has_a_ceiling():
    assert retry_delay(errors.Unavailable("x"), 40, 1000, 1.0) == pytest.approx(5.0)


def test_a_deadline_that_has_passed_names_the_timeout():
    passed = Deadline(at_seconds=0.0, timeout_seconds=2.5)
    assert passed.left() < 0
    with pytest.raises(errors.DeadlineExceeded, match=r"timeout is 2\.5 s"):
        passed.remaining()


@pytest.mark.parametrize(
    ("left", "attempt", "why"),
    [
        (60.0, 45.0, "a quarter is left for another"),
        (15.0, 11.25, "and again"),
        (6.0, 6.0, "no attempt of less than 5 s is made for that"),
    ],
)
def test_an_attempt_leaves_time_for_another(left, attempt, why):
    assert Deadline.after(left).attempt() == pytest.approx(attempt, abs=0.01), why


def test_the_last_attempt_has_all_the_time():
    config, deadline = ClientConfig(max_attempts=3), Deadline.after(60.0)
    found = [seconds_for(attempt, config, deadline) for attempt in (1, 2, 3, 4)]
    assert found == [pytest.approx(each, abs=0.01) for each in (45.0, 45.0, 60.0, 60.0)]


@pytest.mark.parametrize(("left", "spares"), [(15.0, True), (1.3, True), (0.5, False), (-1, False)])
def test_time_is_spared_only_by_attempts_that_were_cut_short(left, spares):
    assert Deadline.after(left).spares() is spares


def test_keywords_become_options():
    options, call = embed_options(
        "query",
        {
            "instruction": "Find it",
            "dimension": 64,
            "output_type": "ubinary",
            "truncation": Truncation.START,
            "priority": "bulk",
            "timeout": 3,
            "on_item_error": "keep",
        },
        60.0,
    )
    assert options.input_type is InputType.QUERY
    assert options.output_type is OutputType.UBINARY
    assert options.truncation is Truncation.START
    assert options.priority is Priority.BULK
    assert (options.instruction, options.dimension, options.normalize) == ("Find it", 64, True)
    assert (call.timeout_seconds, call.keep_errors) == (3.0, True)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"dimension": -1}, "dimension is -1; it must be 0 to 4294967295"),
        ({"dimension": 2**32}, "dimension is 4294967296; it must be 0 to 4294967295"),
        ({"dimension": 2.5}, r"dimension is 2\.5; it must be a whole number"),
        ({"dimension": True}, "dimension is True"),
        ({"output_type": "float64"}, "output_type is 'float64'; it must be one of FLOAT32, "),
        ({"truncation": "middle"}, "truncation is 'middle'; it must be one of NONE, END, START"),
        ({"priority": 1}, "priority is 1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"on_item_error": "ignore"}, "on_item_error is 'ignore'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(keywords, said):
    with pytest.raises(errors.InvalidRequest, match=said):
        embed_options("DOCUMENT", keywords, 60.0)


@pytest.mark.parametrize("input_type", ["", "passage", None])
def test_the_input_type_is_one_of_two(input_type):
    with pytest.raises(errors.InvalidRequest, match="must be one of QUERY, DOCUMENT"):
        embed_options(input_type, {}, 60.0)


def test_an_unknown_keyword_is_refused_with_the_closest():
    with pytest.raises(TypeError, match=r"no option 'dimensions'\. Did you mean 'dimension'"):
        embed_options("QUERY", {"dimensions": 64}, 60.0)
    with pytest.raises(TypeError, match=r"no option 'colour'\. Known: instruction, top_n"):
        rerank_options({"colour": "red"}, 60.0)


@pytest.mark.parametrize("field", ["timeout_seconds", "max_batch_items", "max_in_flight"])
def test_a_config_that_could_send_nothing_is_refused(field):
    with pytest.raises(errors.InvalidRequest, match=f"{field} is 0"):
        ClientConfig(**{field: 0})


def test_the_default_stands_in_for_no_timeout():
    assert seconds(None, 7.0) == 7.0
