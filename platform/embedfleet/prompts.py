"""The exact text that each model of the Qwen3 Embedding family was trained on.

Strings only: nothing here knows tokens or limits. Copied character by character from the README
and examples of QwenLM/Qwen3-Embedding (arXiv 2506.05176): one space more or one quote of another
kind changes the tokens, and with them every vector and score.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "RERANK_PREFIX",
    "RERANK_SUFFIX",
    "TEMPLATE",
    "document_tail",
    "query_head",
    "query_prompt",
    "rerank_head",
]

TEMPLATE: Final = "qwen3"
"""Name of this set of prompts in a vector contract. Any change of a string below changes it."""

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
    """Return what stands before a query's own text: no space after the colon."""
    return f"Instruct: {instruction}\nQuery:"


def query_prompt(instruction: str, query: str) -> str:
    """Return what an embedder reads for a query. A document is read as it is."""
    return query_head(instruction) + query


def rerank_head(instruction: str, query: str) -> str:
    """Return the part of a reranker's body that all documents of a query share.

    It ends before the space: split there, head and tail give the same tokens as the whole body.
    """
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def document_tail(document: str) -> str:
    """Return the part of a reranker's body that is a document's own."""
    return f" {document}"
