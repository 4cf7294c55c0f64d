"""The tests' network, and links of pods that are cut, or slow and lossy: what arrives, and when."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import network
from e2e.network import Namespace, Network

REASON = network.missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there")

PORT = 7
BULK = b"0123456789abcdef" * (1 << 18)
"""4 MiB: many segments, which the kernel would rather cut late."""
SERVER = f"""
import hashlib, socket
listener = socket.create_server(("0.0.0.0", {PORT}))
print("up", flush=True)
while True:
    connection, _ = listener.accept()
    seen = hashlib.sha256()
    while data := connection.recv(1 << 16):
        seen.update(data)
    connection.sendall(seen.hexdigest().encode())
    connection.close()
"""
CLIENT = f"""
import json, socket, sys, time
def told(data):
    connection = socket.create_connection((sys.argv[1], {PORT}), timeout=30)
    connection.settimeout(60)
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    return connection.recv(64).decode()
found = []
for _ in range(5):
    began = time.monotonic()
    socket.create_connection((sys.argv[1], {PORT}), timeout=float(sys.argv[2])).close()
    found.append(time.monotonic() - began)
print(json.dumps([found, told(b"0123456789abcdef" * (1 << 18))]))
"""


@pytest.fixture
def made() -> Iterator[Network]:
    with network.bridge() as made:
        yield made


@pytest.fixture
def pods(made: Network) -> Iterator[tuple[Namespace, Namespace]]:
    """A client's namespace, and a server's that serves."""
    client, server = made.join(1), made.join(2)
    process = subprocess.Popen(inside(server, SERVER), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield client, server
    process.kill()
    process.communicate()


def inside(namespace: Namespace, script: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", namespace.name, sys.executable, "-c", script, *arguments]


def asked(pods: tuple[Namespace, Namespace], seconds: float = 30) -> list[float]:
    """Say how long connects took; what was sent after them has arrived whole."""
    client, server = pods
    said = subprocess.check_output(inside(client, CLIENT, server.address, str(seconds)))
    took: list[float]
    took, digest = json.loads(said)
    assert digest == hashlib.sha256(BULK).hexdigest()
    return took


def test_a_namespace_is_found_by_its_address(
    made: Network, pods: tuple[Namespace, Namespace]
) -> None:
    assert [made.at(each.address) for each in pods] == list(pods)


def test_a_slow_link_delays_each_way_and_is_removed(
    made: Network, pods: tuple[Namespace, Namespace]
) -> None:
    before = subprocess.check_output(["ip", "-o", "link"])
    assert min(asked(pods)) < 0.1
    with made.slow(pods[1], delay_seconds=0.05, loss=0.0):
        assert min(asked(pods)) >= 0.1
    assert min(asked(pods)) < 0.1
    assert subprocess.check_output(["ip", "-o", "link"]) == before


def test_a_lossy_link_loses_no_byte_of_a_connection(
    made: Network, pods: tuple[Namespace, Namespace]
) -> None:
    asked(pods)  # of three requests for an address, all may be lost: it is known from now on
    with made.slow(pods[1], delay_seconds=0.005, loss=0.05):
        asked(pods)


def test_what_is_cut_is_reached_again_when_it_is_mended(
    made: Network, pods: tuple[Namespace, Namespace]
) -> None:
    made.cut(pods[1])
    with pytest.raises(subprocess.CalledProcessError):
        asked(pods, seconds=0.5)
    made.mend(pods[1])
    asked(pods)


def test_the_network_keeps_its_address_as_pods_come_and_go(made: Network) -> None:
    path = Path("/sys/class/net", made.bridge, "address")
    before = path.read_text()
    for each in [made.join(number) for number in range(3)]:
        assert path.read_text() == before
        made.leave(each)
    assert path.read_text() == before
