"""A link that is slow and loses frames: carries frames between two interfaces, each after a delay.

Usage: python slow_link.py INTERFACE INTERFACE DELAY_SECONDS LOSS SEED    until it is killed.
Prints a line when it carries.

Stands in for `tc netem`, which needs a kernel module that not every machine has. The kernel leaves
checksums and the cutting of large segments to whatever sends last, so frames carry what it says of
them in front (struct virtio_net_hdr, packet(7): PACKET_VNET_HDR).
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import sys
import time
from itertools import count

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET = 263
_VNET_HDR = 15
_IGNORE_OUTGOING = 23
_RECEIVE_BUFFER, _SEND_BUFFER = 33, 32
"""SO_RCVBUFFORCE and SO_SNDBUFFORCE: above what is allowed without rights."""
_BUFFER_BYTES = 1 << 25
_LARGEST_FRAME = 1 << 17


def opened(interface: str) -> socket.socket:
    """Receive what arrives on an interface, and nothing of what is sent there."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    for option in (_VNET_HDR, _IGNORE_OUTGOING):
        found.setsockopt(_SOL_PACKET, option, 1)
    for option in (_RECEIVE_BUFFER, _SEND_BUFFER):
        found.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    found.bind((interface, _ALL_PROTOCOLS))
    found.setblocking(False)
    return found


def carry(one: str, other: str, delay_seconds: float, loss: float, dice: random.Random) -> None:
    """Carry frames both ways, in order.

    Args:
        one: An interface.
        other: Another.
        delay_seconds: Of every frame.
        loss: Share of the frames, each way, that never arrive.
        dice: Which of them.
    """
    ends = opened(one), opened(other)
    far = {ends[0]: ends[1], ends[1]: ends[0]}
    sys.stdout.write("carries\n")
    sys.stdout.flush()
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    numbers = count()
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select(ends, (), (), pause)[0]:
            frame = end.recv(_LARGEST_FRAME)
            if dice.random() >= loss:
                due = time.monotonic() + delay_seconds
                heapq.heappush(waiting, (due, next(numbers), far[end], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(waiting)
            try:
                end.send(frame)
            except OSError:
                # No room, or an end that is gone: a link loses frames then, too.
                continue


if __name__ == "__main__":
    carry(
        sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]),
        random.Random(int(sys.argv[5])),
    )  # fmt: skip
