"""A name server for pods: one question, one answer, addresses of IPv4 only (RFC 1035).

It knows nothing itself; whoever runs it says which addresses a name has.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Lookup", "NameServer", "answer"]

Lookup = Callable[[str], Sequence[str] | None]
"""Addresses of a name without its last dot; None where there is no such name."""

A, IN, NXDOMAIN = 1, 1, 3
_SECONDS_TO_LIVE = 1
_POINTER_TO_QUESTION = 0xC00C


def answer(query: bytes, lookup: Lookup) -> bytes:
    """Answer a query of one question; what it adds, such as EDNS, is ignored."""
    identity, flags = struct.unpack_from("!HH", query)
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    question = query[12 : at + 5]
    found = lookup(".".join(labels).lower())
    addresses = list(found or ()) if kind == A else []
    # It is the authority, recursion is available if wanted: resolvers distrust other answers.
    flags = 0x8480 | (flags & 0x0100) | (NXDOMAIN if found is None else 0)
    header = struct.pack("!HHHHHH", identity, flags, 1, len(addresses), 0, 0)
    records = (
        struct.pack("!HHHIH", _POINTER_TO_QUESTION, A, IN, _SECONDS_TO_LIVE, 4)
        + socket.inet_aton(each)
        for each in addresses
    )
    return header + question + b"".join(records)


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(answer(data, self._lookup), addr)
