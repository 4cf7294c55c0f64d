"""The exact text that each model of the Qwen3 Embedding family was trained on.

Strings only: nothing here knows tokens or limits. Copied character by character from the README
and examples of QwenLM/Qwen3-Embedding (arXiv 2506.05176): one space more or one quote of another
kind changes the tokens, and with them every vector and score.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "EMBEDDER_TEMPLATE",
    "RERANKER_TEMPLATE",
    "RERANK_PREFIX",
    "RERANK_SUFFIX",
    "document_tail",
    "query_head",
    "rerank_head",
]

EMBEDDER_TEMPLATE: Final = "qwen3-embedding"
"""Name of an embedder's prompt in a vector contract; another string below needs another name."""

RERANKER_TEMPLATE: Final = "qwen3-reranker"
"""Name of a reranker's prompt in a contract, under the same rule."""

RERANK_PREFIX: Final = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
"""Opens every reranking prompt. Its special tokens are real ones."""

RERANK_SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""Closes every reranking prompt; the answer is read after it. Its special tokens are real ones."""


def query_head(instruction: str) -> str:
    """Return what stands before a query's own text: no space after the colon.

    A document has nothing before it: an embedder reads it as it is.
    """
    return f"Instruct: {instruction}\nQuery:"


def rerank_head(instruction: str, query: str) -> str:
    """Return the part of a reranker's body that all documents of a query share.

    It ends before the space: split there, head and tail give the same tokens as the whole body.
    """
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def document_tail(document: str) -> str:
    """Return the part of a reranker's body that is a document's own."""
    return f" {document}"
