"""Texts of real words with exactly as many tokens as asked for."""

from __future__ import annotations

import json
import random
from importlib import resources

from support.qwen_tokenizer import published

from embedfleet.messages import Role
from embedfleet.tokenization import Tokenizer


class Writer:
    """Writes texts of the demo corpus' words in random order, the same every time."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.tokenizer = Tokenizer(published(Role.EMBEDDER))
        corpus = resources.files("embedfleet.embedded") / "demo" / "corpus.jsonl"
        lines = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
        self._words = sorted({word for line in lines for word in line.split()})

    def text(self, num_tokens: int) -> str:
        """Write a text; the token that closes a sequence is not counted."""
        while True:
            words = self._random.choices(self._words, k=num_tokens)
            ids = self.tokenizer.encode(" ".join(words))[:num_tokens]
            text = self.tokenizer.decode(ids)
            if text.isascii() and len(self.tokenizer.encode(text)) == num_tokens:
                return text

    def texts(self, lengths: list[int]) -> list[str]:
        """Write one text a length, in random order."""
        written = [self.text(length) for length in lengths]
        self._random.shuffle(written)
        return written
