"""A checkpoint's tokenizer: its `tokenizer.json`, and nothing that anybody remembers about it.

Text of users is ordinary text: no spelling of a special token in it becomes one. Special tokens
come only from templates of our own. Where the file is Qwen3's published one, a faster encoder
computes the same ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import tokenizers

from embedfleet.errors import CheckpointError
from embedfleet.messages import TokenIds
from embedfleet.tokenization.fast import QWEN_SPLIT, FastEncoder

__all__ = ["FILE_NAME", "Tokenizer"]

FILE_NAME: Final = "tokenizer.json"


class Tokenizer:
    """Text to ids and back; safe to share between threads.

    Attributes:
        digest: SHA-256 of the file, in hexadecimal.
        vocab_size: Highest id plus one, special tokens included.
        highest_ordinary_id: Highest id that text of a user can become.
        final_token_id: What the file's post-processor appends to a text; None if nothing.
        special_tokens: Id of every added token by its spelling.
        special_ids: The ids of those: no text of a user ever becomes one.
        backend: `quicktok` where the fast encoder is used, else `tokenizers`.
        cuts_like_qwen: Text is cut by Qwen's pattern, on which the split of prompts relies.
    """

    def __init__(self, data: bytes, source: str = FILE_NAME) -> None:
        document = _parse(data, source)
        self.digest = hashlib.sha256(data).hexdigest()
        self.special_tokens: Mapping[str, int] = {
            token["content"]: token["id"] for token in document.get("added_tokens") or ()
        }
        self.special_ids = frozenset(self.special_tokens.values())
        self.final_token_id = _final_token_id(document.get("post_processor"), source)
        self.cuts_like_qwen = _split_pattern(document.get("pre_tokenizer")) == QWEN_SPLIT
        self._reference = _ordinary_reference(document, source)
        ordinary_ids = self._reference.get_vocab(with_added_tokens=False).values()
        self.highest_ordinary_id: int = max(ordinary_ids, default=-1)
        self.vocab_size: int = max([self.highest_ordinary_id, *self.special_ids]) + 1
        self._fast = FastEncoder.for_document(document) if self.cuts_like_qwen else None
        self.backend = "quicktok" if self._fast else "tokenizers"
        self._special_pattern = _alternatives(self.special_tokens)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read `tokenizer.json`, or the one in a folder.

        Raises:
            CheckpointError: The file is missing, damaged or of a kind that is not understood.
        """
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{file} cannot be read ({error.strerror}): a checkpoint needs its tokenizer.json. "
                "Copy the file that was published with the weights."
            ) from error
        return cls(data, str(file))

    def encode(self, text: str) -> TokenIds:
        """Encode ordinary text to (n,) ids, nothing appended."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Encode ordinary texts to (n,) ids each, nothing appended."""
        if self._fast is None:
            return self._encode_by_reference(texts)
        if all(map(self._fast.is_exact_for, texts)):
            return self._fast.encode_batch(texts)
        exact = [self._fast.is_exact_for(text) for text in texts]
        fast = iter(self._fast.encode_batch([t for t, ok in zip(texts, exact, strict=True) if ok]))
        slow = iter(
            self._encode_by_reference([t for t, ok in zip(texts, exact, strict=True) if not ok])
        )
        return [next(fast) if ok else next(slow) for ok in exact]

    def encode_template(self, template: str) -> TokenIds:
        """Encode text of our own, in which spellings of special tokens are special tokens."""
        parts = self._special_pattern.split(template) if self.special_tokens else [template]
        specials = self.special_tokens
        ids = [np.array([specials[p]]) if p in specials else self.encode(p) for p in parts if p]
        return np.concatenate(ids).astype(np.int64, copy=False) if ids else np.empty(0, np.int64)

    def decode(self, token_ids: Sequence[int] | TokenIds) -> str:
        """Return the text of ids, special tokens spelled out; broken UTF-8 becomes U+FFFD."""
        spelling = {token_id: text for text, token_id in self.special_tokens.items()}
        runs = groupby((int(i) for i in token_ids), key=lambda i: i in spelling)
        return "".join(
            "".join(map(spelling.__getitem__, run))
            if special
            else self._reference.decode(list(run), skip_special_tokens=False)
            for special, run in runs
        )

    def single_token_id(self, text: str) -> int:
        """Return the id of a text that must be one token.

        Raises:
            CheckpointError: It is several tokens in this vocabulary.
        """
        ids = self.encode(text)
        if len(ids) != 1:
            raise CheckpointError(
                f"{FILE_NAME}: {text!r} is {len(ids)} tokens {ids.tolist()}, but a reranker reads "
                "its answer from one. Use the tokenizer that was published with the weights."
            )
        return int(ids[0])

    def yes_no_ids(self) -> tuple[int, int]:
        """Return the ids of a reranker's two answers."""
        return self.single_token_id("yes"), self.single_token_id("no")

    def _encode_by_reference(self, texts: Sequence[str]) -> list[TokenIds]:
        encodings = self._reference.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int64) for encoding in encodings]


def _parse(data: bytes, source: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CheckpointError(
            f"{source} is not JSON ({error}). Download it again: it may be cut off or a pointer."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise CheckpointError(
            f"{source} has no `model`: expected a file of the tokenizers library. "
            "Copy the tokenizer.json that was published with the weights."
        )
    return document


def _ordinary_reference(document: Mapping[str, Any], source: str) -> tokenizers.Tokenizer:
    """Build the reference encoder without added tokens, so that no text can spell one."""
    ordinary = {
        **document,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(ordinary))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{source} is not a tokenizer that the tokenizers library reads: {error}. "
            "Copy the tokenizer.json that was published with the weights."
        ) from error


def _final_token_id(post_processor: Mapping[str, Any] | None, source: str) -> int | None:
    """Read which token the file's template puts after a text; nothing may stand before it."""
    node = post_processor or {}
    nodes = node.get("processors", []) if node.get("type") == "Sequence" else [node]
    for template in nodes:
        if template.get("type") in ("ByteLevel", None):
            continue
        pieces = template.get("single", [])
        kinds = [next(iter(piece)) for piece in pieces]
        if template["type"] != "TemplateProcessing" or kinds not in (
            ["Sequence"],
            ["Sequence", "SpecialToken"],
        ):
            raise CheckpointError(
                f"{source}: post_processor {template['type']} with {kinds or 'no template'} is not "
                "understood: expected a template of the text and at most one token after it."
            )
        if len(pieces) == 2:
            name = pieces[1]["SpecialToken"]["id"]
            (token_id,) = template["special_tokens"][name]["ids"]
            return int(token_id)
    return None


def _split_pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """Return the pattern of a pre-tokenizer made of one isolating split and a byte level."""
    nodes = (pre_tokenizer or {}).get("pretokenizers", [])
    if [node.get("type") for node in nodes] != ["Split", "ByteLevel"]:
        return None
    split, byte_level = nodes
    plain = split.get("behavior") == "Isolated" and not split.get("invert")
    bare = not byte_level.get("add_prefix_space") and not byte_level.get("use_regex")
    pattern: str | None = split.get("pattern", {}).get("Regex")
    return pattern if plain and bare else None


def _alternatives(special_tokens: Mapping[str, int]) -> re.Pattern[str]:
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
