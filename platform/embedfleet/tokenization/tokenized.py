"""What one text becomes, and which texts are refused before any is tokenized; knows no prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from embedfleet.errors import InvalidRequest
from embedfleet.messages import TokenIds

__all__ = ["MAX_CHARACTERS", "Tokenized", "excess", "is_unicode"]

MAX_CHARACTERS: Final = 4_194_304
"""Characters of one text: what 32,768 of Qwen3's longest tokens (128 characters) spell.

More can only be cut off, but would first take a minute and gigabytes to tokenize.
"""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokenized:
    """One sequence, ready for an engine.

    Attributes:
        token_ids: (n,) int64, whatever closes the sequence included. Of a reranker's document,
            what follows the prefix that all documents share.
        truncated: Text was dropped to fit.
    """

    token_ids: TokenIds
    truncated: bool = False


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: half of a surrogate pair cannot."""
    return text.isascii() or _SURROGATE.search(text) is None


def excess(field: str, text: str) -> InvalidRequest | None:
    """Refuse a text that is too long to be tokenized at all, whatever the truncation."""
    if len(text) <= MAX_CHARACTERS:
        return None
    return InvalidRequest(
        f"{field} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read, which is more "
        "than any model takes. Cut it before sending.",
        field=field,
    )
