"""A query and its documents to the sequences a reranker reads.

All documents of a query share a prefix that an engine computes once. The prompt is split before
the space that follows `<Document>:`, the one place where the parts give the tokens of the whole.
Cutting drops document text only: query and suffix stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedfleet.errors import CheckpointError, EmbedfleetError, InvalidRequest
from embedfleet.messages import RerankOptions, TokenIds, Truncation
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, document_tail, rerank_head
from embedfleet.tokenization.tokenized import Tokenized, excess, is_unicode
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = ["RerankTokens", "RerankingTokenizer"]


@dataclass(frozen=True, slots=True)
class RerankTokens:
    """One query's work.

    Attributes:
        prefix: (p,) int64: all that documents share, to be computed once.
        documents: For each document what follows the prefix, or why it cannot be scored.
    """

    prefix: TokenIds
    documents: list[Tokenized | EmbedfleetError]


class RerankingTokenizer:
    """Tokenizes for one reranker; safe to share between threads.

    Args:
        tokenizer: The checkpoint's.
        max_tokens: Longest sequence: shared prefix, document and suffix.

    Raises:
        CheckpointError: The tokenizer cuts text in another way than Qwen's, so that the prompt
            cannot be split, or has not the special tokens of the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        if not tokenizer.cuts_like_qwen:
            raise CheckpointError(
                "tokenizer.json: pre_tokenizer is not Qwen's, so the prompt's parts would not give "
                "the tokens of the whole. Use the file published with the reranker."
            )
        missing = {"<|im_start|>", "<|im_end|>", "<think>", "</think>"} - set(
            tokenizer.special_tokens
        )
        if missing:
            raise CheckpointError(
                f"tokenizer.json: added_tokens lacks {', '.join(sorted(missing))}, which the "
                "reranking prompt is made of. Use the file published with the reranker."
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._system = tokenizer.encode_template(RERANK_PREFIX)
        self._suffix = tokenizer.encode_template(RERANK_SUFFIX)

    def __call__(
        self,
        query: str,
        documents: Sequence[str | None],
        options: RerankOptions,
        default_instruction: str,
    ) -> RerankTokens:
        """Tokenize a query and every document, or say why a document cannot be scored.

        A document is None where the bytes received were not UTF-8.

        Raises:
            InvalidRequest: Query, instruction or bound leave no document a chance.
        """
        prefix = self._prefix(query, options, default_instruction)
        room = self.max_tokens - len(prefix) - len(self._suffix)
        if room < 1:
            raise InvalidRequest(
                f"query takes {len(prefix) + len(self._suffix):,} tokens with instruction and "
                f"prompt; the limit is {self.max_tokens:,} with the document. Shorten the query.",
                field="query",
            )
        bound = _bound(room, options)
        outcomes: list[Tokenized | EmbedfleetError | None] = [
            _refusal(document, f"documents[{i}]") for i, document in enumerate(documents)
        ]
        valid = [i for i, outcome in enumerate(outcomes) if outcome is None]
        encoded = self.tokenizer.encode_batch([document_tail(documents[i] or "") for i in valid])
        for i, ids in zip(valid, encoded, strict=True):
            outcomes[i] = self._fit(ids, bound, options.truncation, f"documents[{i}]")
        return RerankTokens(prefix, [outcome for outcome in outcomes if outcome is not None])

    def least_tokens(self, instruction: str) -> int:
        """Count what the shortest pair takes: prompt, instruction, and one token of each text."""
        return len(self._prefix("a", RerankOptions(), instruction)) + len(self._suffix) + 1

    def _prefix(self, query: str, options: RerankOptions, default_instruction: str) -> TokenIds:
        instruction = default_instruction if options.instruction is None else options.instruction
        for field, text, remedy in (
            ("query", query, "Send what is searched for."),
            ("instruction", instruction, "Leave it out for the model's default."),
        ):
            if not text or not is_unicode(text) or (field == "instruction" and not text.strip()):
                raise InvalidRequest(f"{field} is {text!r}; it must be text. {remedy}", field=field)
            if (too_long := excess(field, text)) is not None:
                raise too_long
        head = self.tokenizer.encode(rerank_head(instruction, query))
        return np.concatenate((self._system, head))

    def _fit(
        self, ids: TokenIds, bound: int, truncation: Truncation, field: str
    ) -> Tokenized | EmbedfleetError:
        """Append the suffix, after cutting the document where asked."""
        if len(ids) <= bound:
            return Tokenized(np.concatenate((ids, self._suffix)))
        if truncation is Truncation.NONE:
            return InvalidRequest(
                f"{field} has {len(ids):,} tokens; {bound:,} fit beside query and prompt "
                f"(max_tokens_per_document, or the model's {self.max_tokens:,} in all). Set "
                "truncation to END or START, or shorten it.",
                field=field,
            )
        kept = ids[:bound] if truncation is Truncation.END else ids[len(ids) - bound :]
        return Tokenized(np.concatenate((kept, self._suffix)), truncated=True)


def _bound(room: int, options: RerankOptions) -> int:
    """Return how many tokens of its own a document may have."""
    asked = options.max_tokens_per_document
    if asked is not None and asked < 1:
        raise InvalidRequest(
            f"max_tokens_per_document is {asked}; it must be at least 1. Leave it out for whatever "
            "fits.",
            field="max_tokens_per_document",
        )
    return room if asked is None else min(room, asked)


def _refusal(document: str | None, field: str) -> EmbedfleetError | None:
    if document is None or not is_unicode(document):
        return InvalidRequest(f"{field} is not valid UTF-8. Send valid text.", field=field)
    if not document:
        return InvalidRequest(f"{field} is empty. Send some text, or leave it out.", field=field)
    return excess(field, document)
