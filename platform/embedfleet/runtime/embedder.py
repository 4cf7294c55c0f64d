"""An embedder on a replica: items in, vectors' bytes out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embedfleet.errors import EmbedfleetError, InvalidRequest, TooLarge
from embedfleet.golden import GOLDEN_TEXTS, Golden, GoldenText, Outputs
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    EmbedOutcome,
    EmbedResult,
    Float32Array,
    InputType,
    Timings,
    TokenIds,
)
from embedfleet.prompts import query_head
from embedfleet.rendering.fitting import check_dimensions
from embedfleet.rendering.replica import ReplicaSettings
from embedfleet.runtime.base import ModelRuntime, TokenizeRequest
from embedfleet.runtime.loading import LoadedModel
from embedfleet.runtime.verification import row_of
from embedfleet.tokenization import EmbeddingTokenizer, Tokenized
from embedfleet.vectors import Finish, check_dimension, finish

__all__ = ["EmbedderRuntime"]


class EmbedderRuntime(ModelRuntime):
    """One embedder; see the base class for its life."""

    def __init__(self, model: LoadedModel, settings: ReplicaSettings) -> None:
        super().__init__(model, settings)
        self._tokenize = EmbeddingTokenizer(model.tokenizer, model.max_tokens)

    async def embed(
        self,
        items: Sequence[EmbedItem | EmbedfleetError],
        options: EmbedOptions,
        deadline: float | None = None,
    ) -> EmbedResult:
        """Embed a request's items; an item that is an error already stays one.

        Args:
            items: As decoded.
            options: Hold for all of them.
            deadline: Seconds on the monotonic clock.

        Raises:
            InvalidRequest: An option is out of bounds, so no item could succeed.
            ContractMismatch: The caller expects another contract.
            TooLarge: The request could never fit the queue.
            Overloaded: The queue is full or the deadline cannot be met.
            DeadlineExceeded: The deadline passed.
        """
        started = time.monotonic()
        how = self._check(items, options)
        outcomes = await self._tokenized(items, options)
        tokenized_at = time.monotonic()
        good = [(i, o) for i, o in enumerate(outcomes) if isinstance(o, Tokenized)]
        results = [
            EmbedOutcome(error=outcome if isinstance(outcome, EmbedfleetError) else None)
            for outcome in outcomes
        ]
        queue_seconds = compute_seconds = 0.0
        if good:
            submitted = await self._batcher.submit(
                [tokenized.token_ids for _, tokenized in good],
                priority=options.priority,
                deadline=deadline,
            )
            queue_seconds, compute_seconds = submitted.queue_seconds, submitted.compute_seconds
            finished = finish(submitted.rows, how)
            for row, (i, tokenized) in enumerate(good):
                error = submitted.errors.get(row) or finished.errors.get(row)
                results[i] = EmbedOutcome(
                    data=b"" if error else finished.data[row],
                    scale=0.0 if error else finished.scales[row],
                    num_tokens=len(tokenized.token_ids),
                    truncated=tokenized.truncated,
                    error=error,
                )
        timings = Timings(
            tokenize_seconds=tokenized_at - started,
            queue_seconds=queue_seconds,
            compute_seconds=compute_seconds,
            total_seconds=time.monotonic() - started,
        )
        return EmbedResult(results, how.dimension, how.output_type, timings)

    async def tokenize(self, request: TokenizeRequest) -> list[Tokenized | EmbedfleetError]:
        """Show the exact ids that each text would be embedded as."""
        self._check_count("texts", len(request.texts))
        self._check_instruction(request.instruction)
        if request.input_type is None:
            raise InvalidRequest(
                "input_type is not set; choose QUERY or DOCUMENT: they give different tokens.",
                field="input_type",
            )
        options = EmbedOptions(
            input_type=request.input_type,
            instruction=request.instruction,
            truncation=request.truncation,
        )
        items = [EmbedItem(text=text) for text in request.texts]
        outcomes = await self._tokenized(items, options)
        self._check_answer(sum(len(o.token_ids) for o in outcomes if isinstance(o, Tokenized)))
        return outcomes

    async def golden_outputs(self, golden: Golden) -> Outputs:
        """Embed the golden texts one by one; those that are too long are left out."""
        dimension = min(golden.dimension, self._model.engine.info.native_dimension)
        found: dict[int, Float32Array] = {}
        for place, text in enumerate(GOLDEN_TEXTS):
            try:
                row = await row_of(self._batcher, self._golden_ids(text, golden.instruction))
            except (InvalidRequest, TooLarge):
                continue
            finished = finish(row[None], Finish(dimension))
            if 0 in finished.errors:
                raise finished.errors[0]
            found[place] = np.frombuffer(finished.data[0], "<f4")
        return found

    def _check_settings(self, settings: ReplicaSettings) -> None:
        check_dimensions(settings, self._model.engine.info.native_dimension)

    async def _tokenized(
        self, items: Sequence[EmbedItem | EmbedfleetError], options: EmbedOptions
    ) -> list[Tokenized | EmbedfleetError]:
        """Tokenize a request's items, off the event loop unless they are short."""
        default = self.settings.default_instruction
        instruction = default if options.instruction is None else options.instruction
        prompt = len(query_head(instruction)) if options.input_type is InputType.QUERY else 0
        # The prompt is encoded alone, to know its tokens, and again before each text.
        size = prompt + sum(prompt + _size(item) for item in items)
        limit = self.settings.batching.max_queued_tokens
        return await self._off_loop(
            size, lambda: self._tokenize(items, options, default, limit), options.priority
        )

    def _golden_ids(self, text: GoldenText, instruction: str) -> TokenIds:
        own = instruction if text.input_type is InputType.QUERY else None
        options = EmbedOptions(text.input_type, instruction=own)
        (tokenized,) = self._tokenize([EmbedItem(text=text.text)], options, instruction)
        if isinstance(tokenized, EmbedfleetError):
            raise tokenized
        return tokenized.token_ids

    def _check(self, items: Sequence[EmbedItem | EmbedfleetError], options: EmbedOptions) -> Finish:
        self._check_contract(options.expected_contract_hash)
        self._check_count("items", len(items))
        self._check_instruction(options.instruction)
        native = self._model.engine.info.native_dimension
        dimension = options.dimension
        if dimension is None:
            dimension = self.settings.default_dimension or native
        output_type = options.output_type or self.settings.default_output_type
        check_dimension(dimension, native, self.settings.allowed_dimensions, output_type)
        return Finish(dimension, options.normalize, output_type)


def _size(item: EmbedItem | EmbedfleetError) -> int:
    """Characters to tokenize or ids to check."""
    if isinstance(item, EmbedfleetError):
        return 0
    if item.text is not None:
        return len(item.text)
    return 0 if item.token_ids is None else len(item.token_ids)
