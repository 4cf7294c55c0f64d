"""What an endpoint sends and what a model writes: taken, tried again, or refused with a reason."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from embedfleet.errors import EndpointFailed
from embedfleet.tuning.synthesis.answers import (
    Reason,
    Unusable,
    content_of,
    read_choice,
    read_query,
)
from embedfleet.tuning.synthesis.breaker import Breaker
from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.passages import Passage
from embedfleet.tuning.synthesis.pauses import asked_pause_seconds, backoff_seconds
from embedfleet.tuning.synthesis.prompts import Configuration, Difficulty, QuestionType
from embedfleet.tuning.synthesis.replies import (
    Completion,
    Ending,
    Failure,
    Next,
    judge_response,
)
from embedfleet.tuning.synthesis.settings import Length, Task

NOW = 1_700_000_000.0


def body(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}).encode()


USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (body({"content": "a"}, **USAGE), Completion("a", Ending.STOP, 7, 3)),
        (body({"content": "a"}), Completion("a", counted=False)),
        (body({"content": "a"}, usage=None), Completion("a", counted=False)),
        (body({"content": "a"}, usage={"prompt_tokens": -1}), Completion("a", counted=False)),
        (body({"content": "a"}, None, **USAGE), Completion("a", Ending.STOP, 7, 3)),
        (body({"content": "a"}, "length", **USAGE), Completion("a", Ending.CUT_OFF, 7, 3)),
        (body({"content": "a"}, "content_filter"), Completion("a", Ending.REFUSED, counted=False)),
        (
            body({"content": None, "refusal": "I cannot"}, **USAGE),
            Completion("I cannot", Ending.REFUSED, 7, 3),
        ),
        (body({"content": None}, **USAGE), Completion("", Ending.STOP, 7, 3)),
        (
            body({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            Completion("ab", counted=False),
        ),
        (body({"content": "\ud83d"}), Completion("?", counted=False)),
    ],
    ids=[
        "whole", "no-usage", "null-usage", "odd-usage", "no-finish", "cut-off", "filtered",
        "refusal", "null", "parts", "half-a-surrogate",
    ],
)  # fmt: skip
def test_completions(sent: bytes, expected: Completion) -> None:
    assert judge_response(200, sent, "json_schema") == expected


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"<html>Welcome to nginx</html>", b"null", b"[]", b"{}", b'{"choices": []}',
        b'{"choices": [{}]}', b'{"choices": [{"message": null}]}', b'{"choices": "a"}',
        b'{"choices": [{"message": {"content": 5}}]}', b"\xff\xfe\x00", b"[" * 100_000,
        b'{"choices": [{"message": {"content": "a"', b'{"error": {"message": "no"}}',
    ],
    ids=lambda sent: sent[:24].decode("ascii", "replace"),
)  # fmt: skip
def test_what_is_no_completion_is_nonsense(sent: bytes) -> None:
    result = judge_response(200, sent, "json_schema")
    assert isinstance(result, Failure)
    assert (result.next, result.status) == (Next.NONSENSE, 200)
    assert len(result.said) < 400


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": None}}).encode()


@pytest.mark.parametrize(
    ("status", "sent", "asked", "expected"),
    [
        (429, error("slow down"), "json_schema", Next.AGAIN),
        (429, error("You exceeded: insufficient_quota"), "json_schema", Next.NOTHING),
        (500, b"oops", "json_schema", Next.AGAIN),
        (503, b"", "json_schema", Next.AGAIN),
        (529, b"overloaded", "json_schema", Next.AGAIN),
        (408, b"", "json_schema", Next.AGAIN),
        (401, error("bad key"), "json_schema", Next.NOTHING),
        (402, error("no credit"), "json_schema", Next.NOTHING),
        (403, error("not for you"), "json_schema", Next.NOTHING),
        (404, error("The model m does not exist"), "json_schema", Next.NOTHING),
        (301, b"", "json_schema", Next.NOTHING),
        (400, error("response_format is not supported"), "json_schema", Next.OTHER_FORMAT),
        (422, error("json_schema: extra field"), "json_object", Next.OTHER_FORMAT),
    ],
)
def test_what_follows_from_a_status(status: int, sent: bytes, asked: str, expected: Next) -> None:
    result = judge_response(status, sent, asked)
    assert isinstance(result, Failure)
    assert (result.next, result.status) == (expected, status)


@pytest.mark.parametrize(
    ("status", "sent", "asked", "said"),
    [
        (400, error("too long: 9,000 tokens"), "json_schema", "HTTP 400: too long: 9,000 tokens"),
        (400, error("response_format again"), "text", "HTTP 400: response_format again"),
        (413, b"", "json_object", "HTTP 413: (nothing)"),
        (422, b'{"detail": "bad"}', "json_object", "HTTP 422: bad"),
    ],
)
def test_a_question_that_is_not_taken(status: int, sent: bytes, asked: str, said: str) -> None:
    assert judge_response(status, sent, asked) == Completion(said, Ending.NOT_TAKEN)


def test_what_an_endpoint_says_cannot_steer_a_terminal() -> None:
    result = judge_response(500, b"\x1b[2Jgone\n\n" + b"x" * 1000, "text")
    assert isinstance(result, Failure)
    assert result.said.startswith("HTTP 500: [2Jgone xxx")
    assert len(result.said) < 320


DRAW = Draw(
    Passage("a" * 16, "A passage.", "en"), 0, (Task.RETRIEVAL, Task.STS), ("A cook", "A nurse"),
    "en", "", Length(min_words=1, max_words=5),
)  # fmt: skip


def choice(**changes: Any) -> str:
    found = {"task": "sts", "persona": 2, "question_type": None, "difficulty": "expert"} | changes
    return json.dumps({name: value for name, value in found.items() if value is not ...})


@pytest.mark.parametrize(
    "content",
    [
        choice(),
        f"  {choice()}\n",
        f"```json\n{choice()}\n```",
        f"```\n{choice()}\n```\n",
        f"<think>\nA nurse? {{}}\n</think>\n\n{choice()}",
        choice(persona="2"),
        choice(question_type=...),
        choice(more="because"),
    ],
    ids=[
        "plain",
        "blanks",
        "fence",
        "bare-fence",
        "thoughts",
        "number-as-text",
        "left-out",
        "more",
    ],
)
def test_choices_that_are_taken(content: str) -> None:
    expected = Configuration(Task.STS, "A nurse", None, Difficulty.EXPERT)
    assert read_choice(content, DRAW) == expected


def test_a_search_has_a_type() -> None:
    content = choice(task="retrieval", question_type="keywords", persona=1)
    expected = Configuration(Task.RETRIEVAL, "A cook", QuestionType.KEYWORDS, Difficulty.EXPERT)
    assert read_choice(content, DRAW) == expected


@pytest.mark.parametrize(
    ("content", "reason", "flaw"),
    [
        ("", "not-json", "it is empty"),
        ("I'm sorry, but I cannot help.", "not-json", "it is not JSON"),
        (choice()[:-5], "not-json", "it is not JSON"),
        (f"{choice()} Hope that helps!", "not-json", "it is not JSON"),
        ("[1]", "not-json", "it is [1], not a JSON object"),
        ("[" * 100_000, "not-json", "it is not JSON"),
        (choice(task="cooking"), "wrong-fields", "task"),
        (choice(task="bitext"), "wrong-fields", "task is bitext, offered are retrieval, sts"),
        (choice(task=...), "wrong-fields", "task: Field required"),
        (choice(persona=0), "wrong-fields", "persona is 0, offered are 1 to 2"),
        (choice(persona=3), "wrong-fields", "persona is 3, offered are 1 to 2"),
        (choice(persona="A cook"), "wrong-fields", "persona"),
        (choice(difficulty="hard"), "wrong-fields", "difficulty"),
        (choice(task="retrieval"), "wrong-fields", "question_type is null"),
    ],
)
def test_choices_that_are_refused(content: str, reason: str, flaw: str) -> None:
    with pytest.raises(Unusable) as refused:
        read_choice(content, DRAW)
    assert refused.value.reason == reason
    assert refused.value.flaw.startswith(flaw)


def test_queries() -> None:
    assert read_query('{"query": "  what\\n is  it?"}') == "what is it?"
    for content in ('{"query": ""}', '{"query": "\\n "}', '{"query": 5}', '{"question": "a"}'):
        with pytest.raises(Unusable) as refused:
            read_query(content)
        assert refused.value.reason is Reason.WRONG_FIELDS


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending.CUT_OFF, Reason.CUT_OFF),
        (Ending.REFUSED, Reason.REFUSED),
        (Ending.NOT_TAKEN, Reason.NOT_TAKEN),
    ],
)
def test_endings_that_bring_no_content(ending: Ending, reason: Reason) -> None:
    with pytest.raises(Unusable) as refused:
        content_of(Completion("why", ending))
    assert (refused.value.reason, "why" in refused.value.flaw) == (reason, True)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, None),
        (429, {"retry-after": "7"}, 7),
        (429, {"retry-after": "0.5"}, 0.5),
        (429, {"retry-after": "-3"}, 0),
        (503, {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60),
        (503, {"retry-after": "Tue, 14 Nov 2023 22:10:00 GMT"}, 0),
        (503, {"retry-after": "soon"}, None),
        (200, {"retry-after": "7"}, None),
        (200, {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"}, None),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, 9),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5"}, 1.5),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1700000005"}, 5),
        (
            200,
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1700000005000"},
            5,
        ),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "a while"}, None),
        (
            429,
            {
                "retry-after": "2",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m",
            },
            60,
        ),
    ],
)
def test_how_long_an_endpoint_wants_to_be_left_alone(
    status: int, headers: dict[str, str], expected: float | None
) -> None:
    # 1,700,000,000 s are Tue, 14 Nov 2023 22:13:20 GMT.
    assert asked_pause_seconds(status, headers, NOW) == pytest.approx(expected)


def test_backoff_doubles_up_to_its_limit_and_has_jitter() -> None:
    for failures, whole in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (500, 30)]:
        drawn = [backoff_seconds(1, 30, failures, Random(seed)) for seed in range(200)]
        assert whole / 2 <= min(drawn) < 0.55 * whole
        assert 0.95 * whole < max(drawn) <= whole


def test_failures_of_one_moment_count_once() -> None:
    breaker = Breaker(3)
    # Sixteen requests sent at 0 fail together; then one that was sent after each failure.
    assert [breaker.failed(0, 1 + 0.01 * n) for n in range(16)] == [True] + [False] * 15
    breaker.check("gone")
    assert breaker.failed(2, 3)
    breaker.check("gone")
    assert breaker.failed(4, 5)
    with pytest.raises(EndpointFailed) as refused:
        breaker.check("HTTP 503: gone.")
    assert "failed 3 times in a row" in refused.value.message
    assert "It said last: HTTP 503: gone." in refused.value.message


def test_an_answer_begins_the_count_anew_and_spoiled_ones_all_count() -> None:
    breaker = Breaker(3)
    for _ in range(2):
        breaker.spoiled()
        breaker.spoiled()
        breaker.check("odd")
        breaker.succeeded()
    for _ in range(3):
        breaker.spoiled()
    with pytest.raises(EndpointFailed):
        breaker.check("odd")
