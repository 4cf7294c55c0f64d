"""What an ingress uses of a call's context, and requests as they come to it."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from embedfleet.serving.services import Received

__all__ = ["Context", "received"]


class Context:
    """Keeps what was said of a call.

    Args:
        metadata: Of the call.
    """

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata
        self.code: Any = None
        self.details: Any = None
        self.trailing: Any = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Give the call's metadata."""
        return self.metadata

    def set_code(self, code: Any) -> None:
        """Keep the status."""
        self.code = code

    def set_details(self, details: Any) -> None:
        """Keep the message."""
        self.details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Keep what ends the answer."""
        self.trailing = metadata


def received(message: Message) -> Received:
    """Give a request as Serve does: its bytes."""
    return Received(type(message), message.SerializeToString())
