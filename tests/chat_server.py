"""A chat completions endpoint on a free port: speaks the protocol, counts, limits, fails on demand.

Answers come from a function of the request, so that a test says what the model writes. As a
program, `chat_server.py [PORT]`, it tells its address and runs until it is killed.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Response:
    """What is sent back after `seconds`; `promised` bytes may be more than there are."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def prompt(self) -> str:
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def step(self) -> str:
        again = len(self.body["messages"]) > 2
        first = "You plan" in self.body["messages"][0]["content"]
        return ("choose" if first else "write") + ("-again" if again else "")

    @property
    def passage(self) -> str:
        found = re.search(r'^"(?:[^"\\]|\\.)*"$', self.body["messages"][1]["content"], re.M)
        assert found
        text: str = json.loads(found[0])
        return text


def completion(content: Any, finish: str = "stop", usage: Any = (100, 10), **more: Any) -> Response:
    """Answer with a message as the protocol has it."""
    message = {"role": "assistant", "content": content, **more}
    record: dict[str, Any] = {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}]
    }
    if usage is not None:
        record["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Response(json.dumps(record).encode())


def refusal(status: int, message: str, **headers: str) -> Response:
    body = json.dumps({"error": {"message": message, "type": "error"}}).encode()
    return Response(body, status, {name.replace("_", "-"): text for name, text in headers.items()})


def sensible(received: Received) -> Response:
    """Answer as a good model would: a search for the passage's first words."""
    if received.step.startswith("choose"):
        chosen = {
            "task": "retrieval", "persona": 1, "question_type": "fact", "difficulty": "school",
        }  # fmt: skip
        return completion(json.dumps(chosen))
    return completion(json.dumps({"query": f"where is {received.passage[:60]}"}))


Answer = Callable[[Received], Response]


class ChatServer:
    """The endpoint; `received` holds every request, in order."""

    def __init__(self, answer: Answer = sensible, port: int = 0) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def asked(self) -> Counter[str]:
        """Count requests by what they ask."""
        return Counter(json.dumps(each.body["messages"]) for each in self.received)

    def steps(self) -> Counter[str]:
        return Counter(each.step for each in self.received)

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): text for name, text in self.headers.items()}
                received = Received(json.loads(data), headers, time.monotonic())
                with server._lock:
                    if self.path == "/v1/chat/completions":
                        server.received.append(received)
                        response = server.answer(received)
                    else:
                        response = refusal(404, f"no such path: {self.path}")
                time.sleep(response.seconds)
                self._send(response)

            def _send(self, response: Response) -> None:
                try:
                    self.send_response(response.status)
                    for name, text in response.headers.items():
                        self.send_header(name, text)
                    length = len(response.body) if response.promised is None else response.promised
                    self.send_header("Content-Length", str(length))
                    self.end_headers()
                    self.wfile.write(response.body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                if response.promised is not None:
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[ChatServer]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


if __name__ == "__main__":

    def unhurried(received: Received) -> Response:
        return Response(sensible(received).body, seconds=0.1)

    with ChatServer(unhurried, int((sys.argv[1:] or ["0"])[0])).running() as started:
        sys.stdout.write(started.base_url + "\n")
        sys.stdout.flush()
        threading.Event().wait()
