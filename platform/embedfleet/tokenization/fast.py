"""The fast encoder of the published Qwen3 vocabulary, and when it may stand in for the reference.

It is used only for a checkpoint whose tokenizer is proven the same, and only for text on which
both are exact. They normalise with different editions of Unicode: a combining mark younger than
the older edition is reordered by one and left by the other. Unicode never changes how an assigned
character normalises, so text made of characters of edition 3.2 (March 2002) is safe in every
later edition, and younger letters, numbers and marks go the reference's way.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import quicktok

__all__ = ["QWEN_SPLIT", "FastEncoder", "byte_alphabet"]

QWEN_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which every Qwen3 tokenizer cuts text before merging."""

MERGES_SHA256: Final = "bbeef245f0b03a9613753068e5799c2496290005594c68f09eed68feedbe6d1f"
"""Digest of Qwen3's merges in order, as `left right` lines."""

_LAST_SCRIPT: Final = 0x2A6E0  # beyond it edition 3.2 assigned nothing but compatibility ideographs
_SHORT_CHARACTERS: Final = 2_000


class FastEncoder:
    """Encodes ordinary text; safe to share between threads, and releases the GIL on batches."""

    def __init__(self) -> None:
        self._encoding = quicktok.get_encoding("qwen3")

    @classmethod
    def for_document(cls, document: Mapping[str, Any]) -> FastEncoder | None:
        """Return the encoder if a parsed `tokenizer.json` is Qwen3's own, else None."""
        model = document["model"]
        if document.get("normalizer") != {"type": "NFC"} or not _has_plain_merging(model):
            return None
        merges = (m if isinstance(m, str) else f"{m[0]} {m[1]}" for m in model["merges"])
        if hashlib.sha256("\n".join(merges).encode()).hexdigest() != MERGES_SHA256:
            return None
        encoder = cls()
        return encoder if encoder._has_vocabulary(model["vocab"]) else None

    def _has_vocabulary(self, vocab: Mapping[str, int]) -> bool:
        alphabet = byte_alphabet()
        tokens = map(self._encoding.decode_single_token_bytes, range(len(vocab)))
        try:
            return all(
                vocab.get("".join(map(alphabet.__getitem__, token))) == token_id
                for token_id, token in enumerate(tokens)
            )
        except KeyError:
            return False

    def is_exact_for(self, text: str) -> bool:
        """Whether this encoder's ids for a text are the reference's."""
        if text.isascii():
            return True
        basic, supplementary, unsafe_supplementary = _patterns()
        if basic.search(text):
            return False
        return not unsafe_supplementary.search("".join(set(supplementary.findall(text))))

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Encode texts for which the encoder is exact, each to its own (n,) ids."""
        if not texts:
            return []
        if len(texts) == 1 and len(texts[0]) < _SHORT_CHARACTERS:
            return [np.array(self._encoding.encode_ordinary(texts[0]), np.int64)]
        ids, offsets = self._encoding.encode_batch(texts, 1)
        return np.split(ids.astype(np.int64), offsets[1:-1])


def _has_plain_merging(model: Mapping[str, Any]) -> bool:
    unusual = ("dropout", "unk_token", "byte_fallback", "ignore_merges")
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    return model.get("type") == "BPE" and not any(model.get(key) for key in unusual + affixes)


def byte_alphabet() -> list[str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of unsafe basic, of any supplementary, and of unsafe supplementary characters.

    Two steps, because a character class with many supplementary ranges is searched linearly.
    """
    spans = list(_unsafe_spans())
    basic = "".join(f"\\u{a:04x}-\\u{min(b, 0xFFFF):04x}" for a, b in spans if a <= 0xFFFF)
    supplementary = "".join(f"\\U{max(a, 0x10000):08x}-\\U{b:08x}" for a, b in spans if b > 0xFFFF)
    return (
        re.compile(f"[{basic}]"),
        re.compile("[\U00010000-\U0010ffff]"),
        re.compile(f"[{supplementary}]"),
    )


def _unsafe_spans() -> Iterator[tuple[int, int]]:
    start: int | None = None
    for code in range(_LAST_SCRIPT):
        if _is_unsafe(chr(code)):
            start = code if start is None else start
        elif start is not None:
            yield start, code - 1
            start = None
    yield _LAST_SCRIPT if start is None else start, 0x10FFFF


def _is_unsafe(character: str) -> bool:
    if unicodedata.ucd_3_2_0.category(character) != "Cn":
        return False
    category = unicodedata.category(character)
    return category[0] in "LNM" or category == "Cn" or bool(unicodedata.decomposition(character))
