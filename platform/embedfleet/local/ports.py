"""Free ports, so that fleets and their tests run side by side.

A port that the system hands out is free at that moment only. All ports of one fleet are held open
together while they are chosen, so that no two are the same; Serve's port ranges are blocks that lie
below the range from which the system hands out.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Final

from embedfleet.errors import Unavailable

__all__ = ["LocalPorts", "choose_ports", "free_block", "free_ports", "why_taken"]

REPLICA_BLOCK = 200
"""Ports for replicas of each protocol: Serve gives every ingress replica one."""


_BLOCKS: Final = ("replica_http_first", "replica_grpc_first", "worker_first")


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """Every port that one local fleet listens on.

    The edge listens where it is told, and Ray asks for its token everywhere; but Serve opens its
    own proxies and replicas on all interfaces in plain text, so a machine that is reachable needs
    a firewall in front of all ports but `edge`.
    """

    edge: int
    serve_http: int
    serve_grpc: int
    fallback_http: int
    fallback_grpc: int
    haproxy_metrics: int
    haproxy_stats: int
    gcs: int
    dashboard: int
    dashboard_agent: int
    dashboard_agent_grpc: int
    runtime_env_agent: int
    node_manager: int
    object_manager: int
    metrics_export: int
    ray_client: int
    replica_http_first: int
    replica_grpc_first: int
    worker_first: int


def free_ports(count: int) -> list[int]:
    """Choose ports that are free now and differ from each other."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def why_taken(host: str, port: int) -> str:
    """Say in the system's words why nothing can listen there; empty if something can."""
    with socket.socket() as probe:
        # As servers do: connections that just ended do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def free_block(size: int, avoid: tuple[range, ...] = ()) -> int:
    """Choose the first of `size` consecutive ports that are free now.

    Raises:
        Unavailable: No such block was found.
    """
    for _ in range(200):
        first = random.randrange(11_000, 32_000 - size)
        block = range(first, first + size)
        if any(first < other.stop and other.start < block.stop for other in avoid):
            continue
        if not any(why_taken("127.0.0.1", port) for port in block):
            return first
    raise Unavailable(f"No {size} consecutive free ports between 11000 and 32000. Free some.")


def choose_ports(edge: int | None = None) -> LocalPorts:
    """Choose every port of a fleet; `edge` is the one its users see, None for any."""
    blocks: dict[str, int] = {}
    for name in _BLOCKS:
        taken = tuple(range(first, first + REPLICA_BLOCK) for first in blocks.values())
        blocks[name] = free_block(REPLICA_BLOCK, taken)
    single = [field.name for field in fields(LocalPorts) if field.name not in _BLOCKS]
    chosen = dict(zip(single, free_ports(len(single)), strict=True))
    return LocalPorts(**chosen | blocks | ({"edge": edge} if edge else {}))
