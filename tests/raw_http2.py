"""HTTP/2 by hand (RFC 9113, RFC 7541 literals without indexing): what no gRPC client would send."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request_headers(path: str) -> bytes:
    pairs = {
        b":method": b"POST", b":scheme": b"http", b":path": path.encode(), b":authority": b"edge",
        b"content-type": b"application/grpc", b"te": b"trailers",
    }  # fmt: skip
    return b"".join(_literal(name, value) for name, value in pairs.items())


def opening(path: str) -> bytes:
    """Everything that a client sends before the message of its first call."""
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(SETTINGS, ACK, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, request_headers(path))
    )
