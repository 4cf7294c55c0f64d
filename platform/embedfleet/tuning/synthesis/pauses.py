"""When the next request may go: what an endpoint's headers ask for, back-off, and a set pace.

The headers are Retry-After of RFC 9110, section 10.2.3, and OpenAI's x-ratelimit family.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

__all__ = ["Gate", "asked_pause_seconds", "backoff_seconds"]

_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH: Final = 1e9
_EPOCH_MILLISECONDS: Final = 1e12


def asked_pause_seconds(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Read how long an endpoint wants to be left alone; None where it does not say.

    Args:
        status: Of HTTP: with a good one, only used-up limits count.
        headers: With lower-case names.
        now: Seconds since 1970.
    """
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""), now)
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    if status != 200:
        waits.append(_retry_after(headers.get("retry-after", ""), now))
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def backoff_seconds(first: float, longest: float, failures: int, chance: Random) -> float:
    """Give the wait after so many failures in a row: doubling, at most `longest`, 50-100 % of it.

    The jitter keeps clients that failed together from coming back together.
    """
    whole = min(longest, first * 2.0 ** min(failures - 1, 60))
    return whole * (0.5 + 0.5 * chance.random())


class Gate:
    """Lets requests of one process through, none before its time."""

    def __init__(self, requests_per_minute: float | None, chance: Random) -> None:
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._chance = chance
        self._slot = 0.0
        self._open_at = 0.0

    def pause(self, seconds: float) -> None:
        """Let nothing through for a while; the longest wish counts."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    async def wait(self) -> None:
        """Return when a request may go."""
        while True:
            while (seconds := self._open_at - time.monotonic()) > 0:
                # Not all at the same moment: an endpoint that counts would refuse most of them.
                await asyncio.sleep(seconds * (1 + 0.1 * self._chance.random()))
            now = time.monotonic()
            slot = max(now, self._slot)
            self._slot = slot + self._interval
            await asyncio.sleep(slot - now)
            # Slots within a pause that began meanwhile are lost, or all would go at its end.
            if time.monotonic() >= self._open_at:
                return


def _retry_after(text: str, now: float) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())


def _duration(text: str, now: float) -> float | None:
    """Read `6m0s`, `20ms`, plain seconds, or a moment since 1970."""
    parts = _PARTS.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        value = float(text)
    except ValueError:
        return None
    if value >= _EPOCH_MILLISECONDS:
        value /= 1000
    return max(0.0, value - now if value >= _EPOCH else value)
