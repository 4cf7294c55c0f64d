"""What people use instead, set up as its authors document it: the other side of a comparison.

Each peer takes the batch size as an argument, so that the best one can be searched for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from support.machine import CORES
from support.report import note
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from embedfleet.catalog import DEFAULT_INSTRUCTION, MAX_TOKENS
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX

RERANK_MAX_TOKENS = 8192
logging.set_verbosity_error()
logging.disable_progress_bar()


class Peer(Protocol):
    """Whoever computes one row a text."""

    def run(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
        """Compute the rows."""
        ...


def faster_type(load: Callable[[torch.dtype], Peer], texts: Sequence[str]) -> torch.dtype:
    """Find the type that a peer is fastest in, on texts of middling length."""
    some = sorted(texts, key=len)[len(texts) // 2 :][:2]
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        peer = load(dtype)
        peer.run(some[:1], 1)
        started = perf_counter()
        peer.run(some, len(some))
        seconds[dtype] = perf_counter() - started
        note(f"peer in {dtype}: {seconds[dtype]:.2f} s for {len(some)} texts")
    return min(seconds, key=lambda dtype: seconds[dtype])


class SentenceTransformersPeer:
    """The modules of the published embedder: transformer, last token, unit length.

    `encode` sorts by length and pads each batch.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        torch.set_num_threads(CORES)
        transformer = Transformer(
            str(folder), max_seq_length=MAX_TOKENS, model_kwargs={"dtype": dtype}
        )
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
        self._model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")

    def run(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
        """Embed documents."""
        return np.asarray(
            self._model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)
        )


class TransformersReranker:
    """The published reranker's example: padded on the left, logits of the whole vocabulary."""

    def __init__(self, folder: Path, dtype: torch.dtype, query: str) -> None:
        torch.set_num_threads(CORES)
        self._query = query
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._prefix = self._tokenizer.encode(RERANK_PREFIX, add_special_tokens=False)
        self._suffix = self._tokenizer.encode(RERANK_SUFFIX, add_special_tokens=False)
        self._no = self._tokenizer.convert_tokens_to_ids("no")
        self._yes = self._tokenizer.convert_tokens_to_ids("yes")

    def run(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
        """Score documents: the probability of a yes against a no."""
        scores = [
            self._score(texts[start : start + batch_size])
            for start in range(0, len(texts), batch_size)
        ]
        return np.concatenate(scores)

    @torch.no_grad()
    def _score(self, documents: Sequence[str]) -> npt.NDArray[np.float32]:
        bodies = [
            f"<Instruct>: {DEFAULT_INSTRUCTION}\n<Query>: {self._query}\n<Document>: {document}"
            for document in documents
        ]
        encoded = self._tokenizer(
            bodies,
            padding=False,
            truncation="longest_first",
            return_attention_mask=False,
            max_length=RERANK_MAX_TOKENS - len(self._prefix) - len(self._suffix),
        )
        ids = [self._prefix + body + self._suffix for body in encoded["input_ids"]]
        inputs = self._tokenizer.pad({"input_ids": ids}, padding=True, return_tensors="pt")
        logits = self._model(**inputs).logits[:, -1, :]
        pair = torch.stack([logits[:, self._no], logits[:, self._yes]], dim=1)
        return pair.float().log_softmax(dim=1)[:, 1].exp().numpy()
