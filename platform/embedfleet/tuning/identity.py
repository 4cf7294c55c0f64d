"""When two texts count as the same: a document must not be a negative of itself."""

from __future__ import annotations

import unicodedata

__all__ = ["text_key"]


def text_key(text: str) -> str:
    """Give what the same texts have in common: composed characters (NFC), no outer white space."""
    return unicodedata.normalize("NFC", text).strip()
