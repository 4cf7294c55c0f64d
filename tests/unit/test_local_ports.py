"""Which ports a fleet takes, and why it cannot take one."""

import socket
from dataclasses import asdict

from embedfleet.local.ports import REPLICA_BLOCK, choose_ports, free_ports, why_taken

HOST = "127.0.0.1"


def test_a_port_that_somebody_listens_on_is_taken():
    with socket.create_server((HOST, 0)) as server:
        assert "in use" in why_taken(HOST, server.getsockname()[1])


def test_a_connection_that_just_ended_holds_no_port():
    """The side that closes first keeps the port in TIME_WAIT, for a minute on Linux."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    assert why_taken(HOST, port) == ""


def test_an_address_of_another_machine_is_refused_in_the_systems_words():
    # 192.0.2.0/24 is set aside for documentation (RFC 5737).
    assert "assign" in why_taken("192.0.2.1", 9000)


def test_ports_of_one_fleet_differ():
    ports = asdict(choose_ports())
    blocks = [ports.pop(name) for name in list(ports) if name.endswith("_first")]
    assert len({*ports.values()}) == len(ports)
    first, second, third = sorted(blocks)
    assert first + REPLICA_BLOCK <= second <= third - REPLICA_BLOCK
    assert len(set(free_ports(5))) == 5
