"""Putting a configuration to a dashboard that is busy, fails or refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from embedfleet.errors import InvalidManifest, InvalidRequest, Unavailable
from embedfleet.serve_rest import ServeRest

CONFIG = {"applications": [{"name": "emb-docs"}]}


@contextmanager
def dashboard(*answers: tuple[int, str]) -> Iterator[tuple[ServeRest, list[Any]]]:
    """Answer one call after the other, the last one for good; gives what was put, too."""
    put: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            status, said = answers[min(len(put), len(answers) - 1)]
            put.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if not status:
                return  # the connection ends without an answer
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with ServeRest(f"http://127.0.0.1:{server.server_address[1]}") as serve:
            yield serve, put
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("first", [(0, ""), (500, "ActorDiedError: HAProxyManager")])
def test_a_dashboard_that_fails_while_serve_starts_is_told_again(first: tuple[int, str]) -> None:
    with dashboard(first, (200, "")) as (serve, put):
        serve.put(CONFIG)
    assert put == [CONFIG, CONFIG]


def test_what_fails_for_good_is_told_by_its_end() -> None:
    trace = "Traceback\n" + "  a line\n" * 1000 + "RuntimeError: no more"
    with dashboard((500, trace)) as (serve, put):
        with pytest.raises(Unavailable, match=r"(?s)^Serve answers HTTP 500: .*no more$") as raised:
            serve.put(CONFIG, patience_seconds=0)
        assert len(raised.value.message) < 2100
    assert put == [CONFIG]


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, InvalidManifest, "Serve refuses the configuration: no such field"),
        (401, InvalidRequest, "refuses the token"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(
    status: int, error: type[Exception], said: str
) -> None:
    with dashboard((status, "no such field")) as (serve, put), pytest.raises(error, match=said):
        serve.put(CONFIG)
    assert put == [CONFIG]
