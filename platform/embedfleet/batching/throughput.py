"""Tokens per second, as full steps show it.

A mean weighted by tokens: one short query takes nearly as long as a small batch, so counting steps
alike would make an idle engine look slow. Old steps fade with the tokens computed since.
"""

from __future__ import annotations

__all__ = ["Throughput"]

HALF_LIFE_TOKENS = 32_768


class Throughput:
    """Speed measured from finished steps."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        """Count one finished step."""
        keep = 0.5 ** (num_tokens / HALF_LIFE_TOKENS)
        self._tokens = keep * self._tokens + num_tokens * num_tokens
        self._seconds = keep * self._seconds + num_tokens * seconds

    @property
    def tokens_per_second(self) -> float | None:
        """The estimate; None before the first step."""
        return self._tokens / self._seconds if self._seconds > 0 else None
