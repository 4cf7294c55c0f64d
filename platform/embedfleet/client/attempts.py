"""What follows a failed attempt: another one after a while, or the error.

Every attempt that is followed by another is told to the log `embedfleet.client`, for a caller who
asks why a call took so long.
"""

from __future__ import annotations

import logging
import random
from typing import Any, Final

import grpc

from embedfleet.client.options import ClientConfig
from embedfleet.client.retrying import Deadline, retry_delay
from embedfleet.client.transport import Target, translate

__all__ = ["seconds_for", "seconds_to_next", "unanswered"]

_DETAILS: Final = "grpc-status-details-bin"
_log: Final = logging.getLogger("embedfleet.client")


def seconds_for(attempt: int, config: ClientConfig, deadline: Deadline) -> float:
    """Give what an attempt may take: the last one all that is left; raises when that is nothing."""
    return deadline.attempt() if attempt < config.max_attempts else deadline.remaining()


def unanswered(failure: Any) -> bool:
    """Whether an attempt's own time ran out, which says nothing about the next one.

    A fleet that cannot keep a deadline says so in details.
    """
    timed_out = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return timed_out and _DETAILS not in dict(failure.trailing_metadata() or ())


def seconds_to_next(
    failure: Any, attempt: int, target: Target, config: ClientConfig, deadline: Deadline
) -> float:
    """Give the seconds until the next attempt; raise the failure where there is none.

    Args:
        failure: Of `grpc` or `grpc.aio`.
        attempt: Number of the attempt that failed, from 1.
        target: Whom it went to.
        config: Of the client.
        deadline: Bound for all attempts together.
    """
    error = translate(failure, target, deadline)
    if unanswered(failure) and deadline.spares() and attempt < config.max_attempts:
        _log.info("attempt %d had no answer in its share of the time, the next follows", attempt)
        return 0.0
    delay = retry_delay(error, attempt, config.max_attempts, random.random())
    if delay is None or delay >= deadline.left():
        raise error from failure
    _log.info("attempt %d failed, the next is in %.1f s: %s", attempt, delay, error.message)
    return delay
