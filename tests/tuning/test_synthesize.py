"""`embedfleet synthesize` as a user runs it: to its end, killed, asked for a yes, used wrongly."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, Received, Response, completion, refusal, sensible

from embedfleet.config import Settings
from embedfleet.tuning.examples import read_examples

NUM_PASSAGES = 12
COMMAND = [sys.executable, "-m", "embedfleet", "synthesize"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer().running() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, server: ChatServer) -> Path:
    lines = [
        json.dumps({"text": f"The lighthouse number {n} stands on a rock.", "lang": "en"})
        for n in range(NUM_PASSAGES)
    ]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines))
    (tmp_path / "key").write_text("sk-secret\n")
    path = tmp_path / "synthesize.yaml"
    path.write_text(f"""
passages: {{file: passages.jsonl, languageField: lang}}
outputFolder: out
endpoint:
  baseUrl: {server.base_url}
  model: Qwen/Qwen3-32B
  keyFile: key
  concurrency: 3
  retries: {{firstDelaySeconds: 0.01, maxDelaySeconds: 0.02}}
filter:
  model: {{source: embedded/embedder}}
  minCosine: -1
prices: {{promptPerMillion: 0.5, completionPerMillion: 2, currency: EUR}}
""")
    return path


def run(settings: Path, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, "-f", settings.name, *options],
        cwd=settings.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_from_passages_to_examples(settings: Path, server: ChatServer) -> None:
    done = run(settings, "--yes", "--output", "jsonl")
    report = json.loads(done.stdout)
    assert (report["num_asked"], report["num_kept"], report["num_waiting"]) == (12, 12, 0)
    assert report["groups"] == [
        {"task": "retrieval", "language": "en", "num_written": 12, "num_kept": 12}
    ]
    # 24 answers of 100 prompt tokens and 10 of their own.
    spent = report["spending"]
    assert (spent["num_requests"], spent["prompt_tokens"], spent["currency"]) == (24, 2400, "EUR")
    assert spent["cost"] == pytest.approx(2400 * 0.5e-6 + 240 * 2e-6)
    out = settings.parent / "out"
    assert json.loads((out / "report.json").read_text()) == report
    examples = list(read_examples(out / "examples.jsonl"))
    assert [each.positives[0] for each in examples] == [
        f"The lighthouse number {n} stands on a rock." for n in range(NUM_PASSAGES)
    ]
    assert "12 passages; 24 questions for 12 queries to ask, 0 answered already" in done.stderr
    assert "EUR; at most" in done.stderr
    for path in out.iterdir():
        assert "sk-secret" not in path.read_text()
    # Again: nothing to ask, so nobody has to say yes, and the same bytes come out.
    before = (out / "examples.jsonl").read_bytes()
    again = run(settings)
    assert "0 questions for 0 queries to ask, 24 answered already" in again.stderr
    assert "rejected" not in again.stdout
    assert (out / "examples.jsonl").read_bytes() == before
    assert len(server.received) == 24


def test_killed_in_the_middle_and_run_again(settings: Path, server: ChatServer) -> None:
    server.answer = lambda r: Response(**(vars(sensible(r)) | {"seconds": 0.1}))
    journal = settings.parent / "out" / "journal.jsonl"
    running = subprocess.Popen(
        [*COMMAND, "-f", settings.name, "--yes"], cwd=settings.parent, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 7:
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    answered = [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]
    sent = len(server.received)
    assert 7 <= len(answered) < 24
    # Half a line, as a kill in the middle of a write leaves it.
    with journal.open("ab") as file:
        file.write(b'{"kind":"answer","key":"12')
    run(settings, "--yes")
    # What was on disk is not asked again; what was in flight, three at most, is.
    assert len(server.received) - sent == 24 - len(answered)
    assert sum(server.asked().values()) - len(server.asked()) <= 3
    assert len(server.asked()) == 24
    assert len(list(read_examples(settings.parent / "out" / "examples.jsonl"))) == 12


def test_interrupted_from_the_keyboard(settings: Path, server: ChatServer) -> None:
    # Slow enough that a busy machine does not finish before it is interrupted.
    server.answer = lambda r: Response(**(vars(sensible(r)) | {"seconds": 2.0}))
    running = subprocess.Popen(
        [*COMMAND, "-f", settings.name, "--yes"],
        cwd=settings.parent, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(server.received) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert (running.returncode, said.splitlines()[-1]) == (130, "embedfleet: interrupted")
    assert "Traceback" not in said
    sent = len(server.received)
    server.answer = sensible
    run(settings, "--yes")
    assert len(server.received) - sent <= 24 - sent + 3


def test_a_broken_endpoint_is_one_line_and_loses_nothing(
    settings: Path, server: ChatServer
) -> None:
    def breaks(received: Received) -> Response:
        if len(server.received) > 8:
            return Response(b"<html>Bad Gateway</html>", 502)
        return sensible(received)

    server.answer = breaks
    done = run(settings, "--yes", "--set", "endpoint.maxConsecutiveFailures=3", code=1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("embedfleet: The endpoint failed 3 times in a row")
    assert "HTTP 502: <html>Bad Gateway</html>" in last
    assert not (settings.parent / "out" / "examples.jsonl").exists()
    # Without any more requests, what was answered can be had.
    partly = run(settings, "--max-requests", "0", code=1)
    assert "queries are not answered yet: budget.maxRequests is 0" in partly.stderr
    server.answer = sensible
    run(settings, "--yes")
    assert len(list(read_examples(settings.parent / "out" / "examples.jsonl"))) == 12


def test_what_the_endpoint_refused_is_asked_again_on_demand(
    settings: Path, server: ChatServer
) -> None:
    server.answer = lambda r: refusal(400, "too long") if "number 5" in r.passage else sensible(r)
    assert "rejected: refused-by-endpoint" in run(settings, "--yes").stdout
    server.answer = sensible
    sent = len(server.received)
    assert "rejected: refused-by-endpoint" in run(settings).stdout
    assert len(server.received) == sent
    assert "rejected" not in run(settings, "--yes", "--retry-refused").stdout
    assert len(server.received) == sent + 2


def test_a_report_of_every_kind(settings: Path, server: ChatServer) -> None:
    def mixed(received: Received) -> Response:
        number = received.passage.split()[3]
        if received.step.startswith("choose"):
            return sensible(received)
        if number == "0":
            return completion("no")
        query = {"1": received.passage, "2": "where", "3": "Where"}.get(number, f"which {number}")
        return completion(json.dumps({"query": query}))

    server.answer = mixed
    done = run(settings, "--yes", "--output", "jsonl", "--min-cosine", "0.05")
    report = json.loads(done.stdout)
    rejected = report["rejected"]
    assert (rejected["not-json"], rejected["copy-of-passage"], rejected["duplicate"]) == (1, 1, 1)
    assert report["num_kept"] + sum(rejected.values()) == 12
    lines = (settings.parent / "out" / "rejected.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == sum(rejected.values())
    assert all(each["cosine"] <= 0.05 for each in records if each["reason"] == "low-cosine")
    assert sum(report["histogram"]) == 9


def test_the_cost_is_shown_and_nobody_there_is_no_yes(settings: Path, server: ChatServer) -> None:
    done = run(settings, "--dry-run")
    assert "prompt tokens (at 4 bytes a token)" in done.stderr
    refused = run(settings, code=2)
    assert "Nobody is there to say yes to the cost: add --yes." in refused.stderr
    assert server.received == []


@pytest.mark.parametrize(("typed", "code", "sent"), [("n\n", 130, 0), ("y\n", 0, 24)])
def test_a_person_is_asked(
    settings: Path, server: ChatServer, typed: str, code: int, sent: int
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    try:
        done = subprocess.run(
            [*COMMAND, "-f", settings.name],
            cwd=settings.parent, stdin=theirs, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Go on? [y/N]" in done.stderr
    assert (done.returncode, len(server.received)) == (code, sent)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "Give settings with --file synthesize.yaml, or as options."),
        (["-f", "none.yaml"], 2, "'none.yaml' does not exist"),
        (["-f", "synthesize.yaml", "--set", "seed"], 2, "write it as FIELD=VALUE"),
        (["-f", "synthesize.yaml", "--set", "sead=1"], 1, "Did you mean seed?"),
        (["-f", "synthesize.yaml", "--min-cosine", "7"], 1, "filter.minCosine is 7"),
        (["-f", "synthesize.yaml", "--passages", "none.jsonl"], 1, "none.jsonl: No such file"),
        (["-f", "synthesize.yaml", "--set", "endpoint.keyFile=none"], 1, "keyFile is none"),
        (["-f", "synthesize.yaml", "--embedder", "none"], 1, "source none is not a folder"),
        (["--passages", "passages.jsonl"], 1, "outputFolder: is required"),
        (["--base-url", "localhost"], 1, "endpoint.baseUrl is localhost"),
    ],
)  # fmt: skip
def test_wrong_usage(
    settings: Path, server: ChatServer, options: list[str], code: int, said: str
) -> None:
    done = subprocess.run(
        [*COMMAND, *options],
        cwd=settings.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**Settings.load().environment, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert server.received == []
