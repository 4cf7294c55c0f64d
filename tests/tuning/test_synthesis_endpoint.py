"""Asking a real server that limits, fails and talks nonsense: nothing is paid for twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chat_server
import pytest
from chat_server import ChatServer, Received, Response, completion, refusal, sensible

from embedfleet.errors import EndpointFailed
from embedfleet.tuning.synthesis.chat import MAX_RESPONSE_BYTES
from embedfleet.tuning.synthesis.journal import FILE_NAME, Journal
from embedfleet.tuning.synthesis.running import Asked, Synthesis, ask, gather
from embedfleet.tuning.synthesis.settings import SynthesisSettings

QUICK = {"firstDelaySeconds": 0.01, "maxDelaySeconds": 0.02}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer().running() as running:
        yield running


class Runs:
    """Runs into one folder against one server, as the command makes them."""

    def __init__(self, folder: Path, server: ChatServer, num_passages: int) -> None:
        self.folder = folder
        self.server = server
        self.said: list[str] = []
        self._file = folder / "passages.txt"
        lines = [f"The lighthouse number {n} stands on a rock." for n in range(num_passages)]
        self._file.write_text("\n".join(lines))

    def synthesis(self, changes: dict[str, Any], **endpoint: Any) -> Synthesis:
        content = {
            "passages": {"file": str(self._file)},
            "outputFolder": str(self.folder / "out"),
            "endpoint": {
                "baseUrl": self.server.base_url,
                "model": "m",
                "retries": QUICK,
                "keyVariable": "KEY",
            }
            | endpoint,
            "filter": {"model": {"source": "embedded/embedder"}},
        } | changes
        settings = SynthesisSettings.model_validate_json(json.dumps(content))
        return gather(settings, {"KEY": "sk-secret"})

    async def __call__(self, changes: dict[str, Any] | None = None, **endpoint: Any) -> Asked:
        synthesis = self.synthesis(changes or {}, **endpoint)
        with Journal.open(synthesis.folder) as journal:
            return await ask(synthesis, journal, lambda done: None, self.said.append)

    @property
    def journal(self) -> list[dict[str, Any]]:
        lines = (self.folder / "out" / FILE_NAME).read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def runs(tmp_path: Path, server: ChatServer) -> Runs:
    return Runs(tmp_path, server, 6)


def at_first(times: int, first: Callable[[Received], Response]) -> Callable[[Received], Response]:
    """Answer the first requests otherwise."""
    left = [times]

    def answer(received: Received) -> Response:
        left[0] -= 1
        return first(received) if left[0] >= 0 else sensible(received)

    return answer


async def test_what_is_sent(server: ChatServer, runs: Runs) -> None:
    asked = await runs(extraBody={"chat_template_kwargs": {"enable_thinking": False}})
    assert [each.query for each in asked.drafts] == [
        f"where is The lighthouse number {n} stands on a rock." for n in range(6)
    ]
    assert (asked.rejected, asked.num_waiting, asked.stopped) == ([], 0, "")
    assert server.steps() == {"choose": 6, "write": 6}
    first = server.received[0]
    assert first.headers["authorization"] == "Bearer sk-secret"
    assert first.body | {"messages": [], "response_format": {}} == {
        "model": "m", "temperature": 0.7, "max_tokens": 1024, "messages": [],
        "response_format": {}, "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    schema = first.body["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("choose", True)
    assert "sk-secret" not in json.dumps(runs.journal)


async def test_a_second_run_asks_nothing(server: ChatServer, runs: Runs) -> None:
    first = await runs()
    second = await runs()
    assert second == first
    assert len(server.received) == 12


async def test_more_passages_ask_only_for_themselves(
    server: ChatServer, runs: Runs, tmp_path: Path
) -> None:
    await runs()
    again = Runs(tmp_path, server, 8)
    assert len((await again()).drafts) == 8
    assert server.steps() == {"choose": 8, "write": 8}
    assert max(server.asked().values()) == 1


async def test_no_more_than_the_set_number_in_flight(server: ChatServer, runs: Runs) -> None:
    began = time.monotonic()
    server.answer = lambda received: Response(**(vars(sensible(received)) | {"seconds": 0.05}))
    await runs(concurrency=2)
    # 12 requests of 0.05 s, two at a time.
    assert time.monotonic() - began >= 0.3


async def test_a_pace_is_kept(server: ChatServer, runs: Runs) -> None:
    began = time.monotonic()
    await runs(requestsPerMinute=1200)
    assert max(each.at for each in server.received) - began >= 11 * 0.05


async def test_a_rate_limit_is_honoured(server: ChatServer, runs: Runs) -> None:
    taken: list[float] = []
    refused: list[float] = []

    def limited(received: Received) -> Response:
        if len([at for at in taken if received.at - at < 0.3]) >= 3:
            refused.append(received.at)
            return refusal(429, "slow down", Retry_After="0.3")
        taken.append(received.at)
        return sensible(received)

    server.answer = limited
    asked = await runs(concurrency=4)
    assert (len(asked.drafts), len(taken)) == (6, 12)
    # Three a window: four windows, and in each no more refusals than requests in flight. Who comes
    # back before the time is refused every 0.02 s.
    assert taken[-1] - taken[0] >= 0.85
    assert len(refused) <= 4 * 3


async def test_a_used_up_limit_is_waited_for(server: ChatServer, runs: Runs) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    used_up = at_first(1, lambda r: Response(sensible(r).body, headers=headers))
    server.answer = used_up
    await runs(concurrency=1)
    first, second = server.received[:2]
    assert second.at - first.at >= 0.29


async def test_being_told_to_wait_is_no_failed_attempt(server: ChatServer, runs: Runs) -> None:
    server.answer = at_first(5, lambda r: refusal(429, "slow down", Retry_After="0.01"))
    asked = await runs(concurrency=1, retries=QUICK | {"maxAttempts": 1})
    assert len(asked.drafts) == 6


async def test_a_limit_for_hours_stops(server: ChatServer, runs: Runs) -> None:
    server.answer = lambda received: refusal(429, "daily limit", Retry_After="86400")
    with pytest.raises(EndpointFailed, match=r"left alone for 86,400 s.*daily limit"):
        await runs(concurrency=1)
    assert len(server.received) == 1


BROKEN = {
    "500": Response(b"oops", 500),
    "503": refusal(503, "loading"),
    "html": Response(b"<html><body>Welcome</body></html>"),
    "empty": Response(b""),
    "no-choices": Response(b'{"choices": []}'),
    "truncated": Response(b'{"choices": [{"mess', promised=5000),
    "not-gzip": Response(b"plain", headers={"Content-Encoding": "gzip"}),
    "huge": Response(b" " * (MAX_RESPONSE_BYTES + 1)),
    "bomb": Response(
        gzip.compress(bytes(MAX_RESPONSE_BYTES + 1)), headers={"Content-Encoding": "gzip"}
    ),
    "slow": Response(b"{}", seconds=1.5),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_one_broken_answer_is_asked_for_again(
    server: ChatServer, runs: Runs, name: str
) -> None:
    server.answer = at_first(1, lambda received: BROKEN[name])
    asked = await runs(timeoutSeconds=1 if name == "slow" else 60)
    assert (len(asked.drafts), len(server.received)) == (6, 13)
    failures = [each for each in runs.journal if each["kind"] == "failure"]
    assert len(failures) == 1
    assert len(runs.said) == 1


@pytest.mark.parametrize("name", BROKEN)
async def test_an_endpoint_that_stays_broken_stops_the_run(
    server: ChatServer, runs: Runs, name: str
) -> None:
    server.answer = at_first(4, sensible)
    await runs({"budget": {"maxRequests": 4}}, concurrency=1)
    server.answer = lambda received: BROKEN[name]
    timeout = 1 if name == "slow" else 60
    with pytest.raises(EndpointFailed) as failed:
        await runs(concurrency=1, timeoutSeconds=timeout, maxConsecutiveFailures=3)
    assert "The endpoint failed 3 times in a row" in failed.value.message
    assert "run the same command again" in failed.value.message
    assert len(server.received) == 4 + 3
    # What was answered before is used, and the rest is asked for.
    server.answer = sensible
    assert len((await runs()).drafts) == 6
    assert len(server.received) == 4 + 3 + 8


def started(port: str = "0") -> tuple[subprocess.Popen[str], str]:
    program = [sys.executable, chat_server.__file__, port]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


async def test_an_endpoint_killed_in_the_middle(runs: Runs) -> None:
    process, base_url = started()
    running = asyncio.create_task(runs(baseUrl=base_url, concurrency=2, maxConsecutiveFailures=3))
    journal = runs.folder / "out" / FILE_NAME
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        await asyncio.sleep(0.01)
    process.kill()
    process.communicate()
    with pytest.raises(EndpointFailed, match=r"the connection to .* failed"):
        await running
    answered = [each["key"] for each in runs.journal if each["kind"] == "answer"]
    assert 3 <= len(answered) < 12
    process, again = started(base_url.split(":")[2].removesuffix("/v1"))
    try:
        assert again == base_url
        assert len((await runs(baseUrl=base_url)).drafts) == 6
    finally:
        process.kill()
        process.communicate()
    keys = [each["key"] for each in runs.journal if each["kind"] == "answer"]
    assert (len(keys), len(set(keys)), keys[: len(answered)]) == (12, 12, answered)


async def test_nobody_listens(server: ChatServer, runs: Runs) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(EndpointFailed, match=f"the connection to {nobody}/chat/compl.* failed"):
            await runs(baseUrl=nobody, maxConsecutiveFailures=3)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (refusal(401, "Incorrect API key"), "HTTP 401: Incorrect API key. Check the key in KEY."),
        (refusal(404, "no model m"), "HTTP 404: no model m. Check endpoint.model, m, and"),
        (refusal(402, "no credit"), "Check the account's credit."),
        (refusal(429, "insufficient_quota"), "Check the account's credit."),
        (Response(b"", 308, {"Location": "https://elsewhere/"}), "Check endpoint.baseUrl."),
    ],
    ids=["key", "model", "credit", "quota", "moved"],
)
async def test_what_no_retry_can_help_stops_at_once(
    server: ChatServer, runs: Runs, response: Response, said: str
) -> None:
    server.answer = lambda received: response
    with pytest.raises(EndpointFailed) as failed:
        await runs(concurrency=1)
    assert said in failed.value.message
    assert len(server.received) == 1


async def test_what_is_in_flight_when_it_stops_still_comes_in(
    server: ChatServer, runs: Runs
) -> None:
    def answer(received: Received) -> Response:
        if "number 0" in received.passage:
            return refusal(401, "expired")
        return Response(**(vars(sensible(received)) | {"seconds": 0.3}))

    server.answer = answer
    with pytest.raises(EndpointFailed):
        await runs()
    answers = [each for each in runs.journal if each["kind"] == "answer"]
    assert (len(server.received), len(answers)) == (6, 5)


def spoils(step: str, *contents: str) -> Callable[[Received], Response]:
    """Answer one step about lighthouse 0 with these, one after the other."""
    left = list(contents)

    def answer(received: Received) -> Response:
        if received.step.startswith(step) and "number 0" in received.passage and left:
            return completion(left.pop(0))
        return sensible(received)

    return answer


@pytest.mark.parametrize("step", ["choose", "write"])
async def test_a_spoiled_answer_is_repaired_once(server: ChatServer, runs: Runs, step: str) -> None:
    server.answer = spoils(step, "Sure, here you go!")
    assert len((await runs()).drafts) == 6
    again = [each for each in server.received if each.step == f"{step}-again"]
    assert len(again) == 1
    assert again[0].body["messages"][2] == {"role": "assistant", "content": "Sure, here you go!"}
    assert await runs() == await runs()
    assert len(server.received) == 13


@pytest.mark.parametrize("step", ["choose", "write"])
async def test_twice_spoiled_is_rejected_and_counted(
    server: ChatServer, runs: Runs, step: str
) -> None:
    server.answer = spoils(step, "Sure!", "{}")
    asked = await runs()
    ((reason, said),) = [(str(each.reason), each.said) for each in asked.rejected]
    assert (reason, said.partition(":")[2]) == ("wrong-fields", " Field required")
    assert (len(asked.drafts), asked.num_waiting) == (5, 0)
    sent = len(server.received)
    assert await runs() == asked
    assert len(server.received) == sent


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (completion(None, refusal="I cannot"), "refused-by-model"),
        (completion("I", finish="content_filter"), "refused-by-model"),
        (completion('{"task": "retr', finish="length"), "cut-off"),
        (refusal(400, "context length exceeded"), "refused-by-endpoint"),
    ],
    ids=["refusal", "filtered", "cut-off", "too-long"],
)
async def test_what_a_repair_cannot_mend_is_rejected_at_once(
    server: ChatServer, runs: Runs, response: Response, reason: str
) -> None:
    server.answer = lambda r: response if "number 0" in r.passage else sensible(r)
    asked = await runs()
    assert [str(each.reason) for each in asked.rejected] == [reason]
    assert (len(asked.drafts), len(server.received)) == (5, 11)
    assert await runs() == asked
    assert len(server.received) == 11


async def test_a_model_that_never_answers_to_the_point_stops_the_run(
    server: ChatServer, runs: Runs
) -> None:
    server.answer = lambda received: completion("As a language model, I love lighthouses.")
    with pytest.raises(EndpointFailed, match=r"an answer that cannot be used: it is not JSON"):
        await runs(concurrency=1, maxConsecutiveFailures=5)
    assert len(server.received) == 5


async def test_old_rejections_do_not_stop_a_new_run(server: ChatServer, runs: Runs) -> None:
    server.answer = lambda received: completion("no")
    asked = await runs(maxConsecutiveFailures=100)
    assert len(asked.rejected) == 6
    assert len((await runs(maxConsecutiveFailures=2)).rejected) == 6


@pytest.mark.parametrize("taken", ["json_object", "text"])
async def test_json_is_asked_for_as_the_endpoint_takes_it(
    server: ChatServer, runs: Runs, taken: str
) -> None:
    def picky(received: Received) -> Response:
        asked = received.body.get("response_format", {"type": "text"})["type"]
        if asked in ("json_schema", "json_object") and asked != taken:
            return refusal(400, f"response_format {asked} is not supported")
        return sensible(received)

    server.answer = picky
    assert len((await runs(concurrency=2)).drafts) == 6
    assert f"asking for {taken}." in runs.said[-1]
    # A later run knows.
    sent = len(server.received)
    await runs({"queriesPerPassage": 2})
    assert len(server.received) == sent + 12


async def test_a_set_format_is_not_changed(server: ChatServer, runs: Runs) -> None:
    server.answer = lambda received: refusal(400, "response_format is not supported")
    with pytest.raises(EndpointFailed, match=r"responseFormat is json_object, which the endpoint"):
        await runs(responseFormat="json_object", concurrency=1)
    assert len(server.received) == 1


async def test_a_budget_of_requests_is_exact(server: ChatServer, runs: Runs) -> None:
    for budget, sent in ((5, 5), (5, 5), (7, 7), (0, 7)):
        asked = await runs({"budget": {"maxRequests": budget}}, concurrency=4)
        assert len(server.received) == sent
        assert asked.num_waiting > 0
        assert asked.stopped == f"budget.maxRequests is {budget}"
    assert len(server.received) == 7
    done = await runs({"budget": {"maxRequests": 12}}, concurrency=4)
    assert (len(done.drafts), len(server.received), done.num_waiting) == (6, 12, 0)


async def test_failed_requests_count_for_the_budget(server: ChatServer, runs: Runs) -> None:
    server.answer = at_first(3, lambda received: Response(b"", 500))
    asked = await runs({"budget": {"maxRequests": 5}}, concurrency=1)
    assert (len(server.received), asked.num_waiting) == (5, 5)


async def test_a_budget_of_money_stops(server: ChatServer, runs: Runs) -> None:
    # Each answer is 100 prompt tokens and 10 of its own: 0.11 at a price of 1 per thousand.
    changes = {
        "prices": {"promptPerMillion": 1000, "completionPerMillion": 1000, "currency": "EUR"},
        "budget": {"maxCost": 0.5},
    }
    asked = await runs(changes, concurrency=1)
    assert asked.stopped == "budget.maxCost is 0.5 EUR"
    assert len(server.received) == 5


async def test_tokens_are_estimated_where_nobody_counts(server: ChatServer, runs: Runs) -> None:
    server.answer = lambda r: completion(
        json.loads(sensible(r).body)["choices"][0]["message"]["content"], usage=None
    )
    await runs()
    answers = [each for each in runs.journal if each["kind"] == "answer"]
    assert all(each["counted"] is False and each["prompt_tokens"] > 100 for each in answers)


async def test_a_call_given_up_is_asked_in_the_next_run(server: ChatServer, runs: Runs) -> None:
    gone = Response(b"gone", 502)
    server.answer = lambda r: gone if "number 0" in r.passage else sensible(r)
    asked = await runs(retries=QUICK | {"maxAttempts": 2})
    assert (len(asked.drafts), asked.num_waiting) == (5, 1)
    assert asked.stopped == "no answer after 2 attempts"
    server.answer = sensible
    assert len((await runs()).drafts) == 6
    assert len(server.received) == 2 + 10 + 2
