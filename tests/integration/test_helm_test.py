"""What `helm test` runs, run here: against the operator's readiness and against a real fleet."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from charts import rendered
from go_tools import missing

from embedfleet.local.state import FleetState

pytestmark = pytest.mark.skipif(bool(missing("helm")), reason=missing("helm") or "it is there")


@contextmanager
def readiness(status: int) -> Iterator[str]:
    """Answer every request with a status, as an operator's port does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/readyz"
        finally:
            server.shutdown()
            thread.join()


def run(ready: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Run the test pod's command with the addresses of this machine."""
    (pod,) = (each for each in rendered({"tests": {"endpoint": endpoint}}) if each["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["READY"] == "http://embedfleet-operator.system.svc.cluster.local:8081/readyz"
    return subprocess.run(
        [sys.executable, "-c", *container["args"]],
        env={**os.environ, **environment, "READY": ready},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(("status", "passes"), [(200, True), (503, False)])
def test_the_operator_is_asked(status: int, passes: bool) -> None:
    with readiness(status) as ready:
        done = run(ready, "")
    assert (done.returncode == 0) == passes, done.stderr


def test_a_fleet_that_does_not_answer_fails_it() -> None:
    with readiness(200) as ready:
        done = run(ready, "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr


def test_a_fleets_models_are_listed(fleet: FleetState) -> None:
    with readiness(200) as ready:
        done = run(ready, fleet.endpoint)
    assert done.returncode == 0, done.stderr
    assert "docs" in done.stdout
    assert "relevance" in done.stdout
