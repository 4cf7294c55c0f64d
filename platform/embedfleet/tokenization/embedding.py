"""Items of an embedding request to the sequences an embedder reads.

A sequence is the instruction and text of a query, or a document's bare text, and the one final
token whose state is the vector. Cutting drops text only: the instruction and the final token stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedfleet.errors import CheckpointError, EmbedfleetError, InvalidRequest, TooLarge
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, TokenIds, Truncation
from embedfleet.prompts import query_head
from embedfleet.tokenization.tokenized import Tokenized, excess, is_unicode
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = ["EmbeddingTokenizer"]


class EmbeddingTokenizer:
    """Tokenizes for one embedder; safe to share between threads.

    Args:
        tokenizer: The checkpoint's; its post-processor must append a final token.
        max_tokens: Longest sequence, instruction and final token included.

    Raises:
        CheckpointError: The tokenizer appends nothing, so it is not an embedder's.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        if tokenizer.final_token_id is None:
            raise CheckpointError(
                "tokenizer.json appends no final token, but an embedder's vector is that token's "
                "state. Use the file published with the embedder, not a reranker's or base model's."
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._final = np.array([tokenizer.final_token_id], np.int64)

    def __call__(
        self,
        items: Sequence[EmbedItem | EmbedfleetError],
        options: EmbedOptions,
        default_instruction: str,
        max_request_tokens: int | None = None,
    ) -> list[Tokenized | EmbedfleetError]:
        """Tokenize every item, or say why not; one bad item leaves its neighbours alone.

        An item that could not even be read arrives as its error and stays one.

        Token ids of a query follow the ids of the instruction.

        Args:
            items: Each gets an outcome, in this order.
            options: Hold for all of them.
            default_instruction: Of a query whose options bring none.
            max_request_tokens: Most tokens that the prompts of all items may take together, judged
                before any text is encoded; None: any number.

        Raises:
            InvalidRequest: The instruction does not suit the request, so no item could succeed.
            TooLarge: The instruction, repeated for each item, is more than a request may hold.
        """
        head = _head(options, default_instruction)
        head_ids = self.tokenizer.encode(head)
        if len(head_ids) + 2 > self.max_tokens:
            raise InvalidRequest(
                f"instruction takes {len(head_ids)} tokens with its prompt; the limit is "
                f"{self.max_tokens} for instruction, text and final token. Shorten it.",
                field="instruction",
            )
        outcomes: list[Tokenized | EmbedfleetError | None] = [
            _refusal(item, f"items[{i}]") for i, item in enumerate(items)
        ]
        num_good = sum(outcome is None for outcome in outcomes)
        if max_request_tokens is not None and num_good * len(head_ids) > max_request_tokens:
            raise TooLarge(
                f"instruction takes {len(head_ids):,} tokens with its prompt, and stands before "
                f"each of {num_good:,} texts; at most {max_request_tokens:,} tokens fit the queue "
                "(spec.batching.maxQueuedTokens). Shorten the instruction or split the request.",
                field="instruction",
            )
        texts: dict[int, str] = {}
        for i, item in enumerate(items):
            if isinstance(item, EmbedfleetError) or outcomes[i] is not None:
                continue
            if item.token_ids is not None:
                outcomes[i] = self._from_ids(item.token_ids, head_ids, options.truncation, i)
            elif item.text is not None:
                texts[i] = f"{head}{item.text}"
        encoded = self.tokenizer.encode_batch(list(texts.values()))
        for i, ids in zip(texts, encoded, strict=True):
            outcomes[i] = self._fit(ids, head_ids, options.truncation, f"items[{i}].text")
        return [outcome for outcome in outcomes if outcome is not None]

    def _from_ids(
        self, given: TokenIds, head_ids: TokenIds, truncation: Truncation, index: int
    ) -> Tokenized | EmbedfleetError:
        """Check a caller's ids and complete them; a final token already there is not doubled."""
        field = f"items[{index}].token_ids"
        ids = given[:-1] if len(given) and given[-1] == self._final[0] else given
        if not len(ids):
            return InvalidRequest(f"{field} is empty. Send at least one token id.", field=field)
        out_of_range = np.flatnonzero((ids < 0) | (ids >= self.tokenizer.vocab_size))
        if len(out_of_range):
            at = int(out_of_range[0])
            return InvalidRequest(
                f"{field}[{at}] is {ids[at]}; this model's ids are 0 to "
                f"{self.tokenizer.vocab_size - 1}. Use the model's own tokenizer, or send text.",
                field=field,
            )
        special = np.flatnonzero(np.isin(ids, list(self.tokenizer.special_ids)))
        if len(special):
            at = int(special[0])
            return InvalidRequest(
                f"{field}[{at}] is {ids[at]}, the special token "
                f"{self.tokenizer.decode([int(ids[at])])!r}; only ids of ordinary text are taken "
                "(the final token is added here). Tokenize without special tokens.",
                field=field,
            )
        whole = np.concatenate((head_ids, ids.astype(np.int64, copy=False)))
        return self._fit(whole, head_ids, truncation, field)

    def _fit(
        self, ids: TokenIds, head_ids: TokenIds, truncation: Truncation, field: str
    ) -> Tokenized | EmbedfleetError:
        """Append the final token, after cutting text where asked."""
        num_tokens, limit = len(ids) + 1, self.max_tokens
        if num_tokens <= limit:
            return Tokenized(np.concatenate((ids, self._final)))
        if truncation is Truncation.NONE:
            return InvalidRequest(
                f"{field} has {num_tokens:,} tokens with prompt and final token; the limit is "
                f"{limit:,}. Set truncation to END or START, or shorten it.",
                field=field,
            )
        if truncation is Truncation.END:
            kept = ids[: limit - 1]
        else:
            kept = np.concatenate((head_ids, ids[len(ids) - (limit - 1 - len(head_ids)) :]))
        return Tokenized(np.concatenate((kept, self._final)), truncated=True)


def _head(options: EmbedOptions, default_instruction: str) -> str:
    """Return what stands before each text: nothing for documents."""
    if options.input_type is InputType.DOCUMENT:
        if options.instruction is not None:
            raise InvalidRequest(
                "instruction is set with input_type DOCUMENT; only queries carry one. "
                "Leave it out, or set input_type to QUERY.",
                field="instruction",
            )
        return ""
    instruction = default_instruction if options.instruction is None else options.instruction
    if not instruction.strip() or not is_unicode(instruction):
        raise InvalidRequest(
            f"instruction is {instruction!r}; it must be text, because the model was trained with "
            "one. Leave it out for the model's default.",
            field="instruction",
        )
    if (too_long := excess("instruction", instruction)) is not None:
        raise too_long
    return query_head(instruction)


def _refusal(item: EmbedItem | EmbedfleetError, field: str) -> EmbedfleetError | None:
    """Say what is wrong with an item before any tokens are counted."""
    if isinstance(item, EmbedfleetError):
        return item
    if (item.text is None) == (item.token_ids is None):
        problem = "neither text nor token_ids" if item.text is None else "both text and token_ids"
        return InvalidRequest(f"{field} has {problem}. Set exactly one of them.", field=field)
    if item.text == "":
        return InvalidRequest(f"{field}.text is empty. Send some text.", field=f"{field}.text")
    if item.text is not None and not is_unicode(item.text):
        return InvalidRequest(
            f"{field}.text holds half of a surrogate pair, which no UTF-8 can carry. Send valid "
            "Unicode.",
            field=f"{field}.text",
        )
    return None if item.text is None else excess(f"{field}.text", item.text)
