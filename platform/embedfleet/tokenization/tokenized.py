"""What one text becomes, and the cut that makes it fit; knows no prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from embedfleet.messages import TokenIds

__all__ = ["Tokenized", "is_unicode"]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokenized:
    """One sequence, ready for an engine.

    Attributes:
        token_ids: (n,) int64, whatever closes the sequence included.
        truncated: Text was dropped to fit.
    """

    token_ids: TokenIds
    truncated: bool = False


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: half of a surrogate pair cannot."""
    return text.isascii() or _SURROGATE.search(text) is None
