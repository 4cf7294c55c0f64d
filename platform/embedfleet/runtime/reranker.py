"""A reranker on a replica: a query and documents in, a ranking out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embedfleet.batching.schedule import Submitted
from embedfleet.errors import EmbedfleetError, InvalidRequest, TooLarge
from embedfleet.golden import GOLDEN_DOCUMENTS, GOLDEN_QUERY, Golden, Outputs
from embedfleet.messages import (
    Float32Array,
    RerankOptions,
    RerankOutcome,
    RerankResult,
    Timings,
)
from embedfleet.prompts import rerank_head
from embedfleet.rendering.fitting import check_pair
from embedfleet.rendering.replica import ReplicaSettings
from embedfleet.runtime.base import ModelRuntime, TokenizeRequest
from embedfleet.runtime.loading import LoadedModel
from embedfleet.runtime.verification import row_of
from embedfleet.scores import probabilities
from embedfleet.tokenization import RerankingTokenizer, RerankTokens, Tokenized

__all__ = ["RerankerRuntime"]


class RerankerRuntime(ModelRuntime):
    """One reranker; see the base class for its life."""

    def __init__(self, model: LoadedModel, settings: ReplicaSettings) -> None:
        super().__init__(model, settings)
        self._tokenize = RerankingTokenizer(model.tokenizer, model.max_tokens)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str | None],
        options: RerankOptions,
        deadline: float | None = None,
    ) -> RerankResult:
        """Score documents against a query; instruction and query are computed once.

        Args:
            query: What is searched for.
            documents: None where the bytes received were not UTF-8.
            options: Hold for all documents.
            deadline: Seconds on the monotonic clock.

        Raises:
            InvalidRequest: Query or options leave no document a chance.
            ContractMismatch: The caller expects another contract.
            Overloaded: The queue is full or the deadline cannot be met.
            DeadlineExceeded: The deadline passed.
        """
        started = time.monotonic()
        self._check(documents, options)
        tokens = await self._tokenized(query, documents, options)
        tokenized_at = time.monotonic()
        good = [(i, d) for i, d in enumerate(tokens.documents) if isinstance(d, Tokenized)]
        submitted: Submitted | None = None
        if good:
            submitted = await self._batcher.submit(
                [tokenized.token_ids for _, tokenized in good],
                prefix=tokens.prefix,
                priority=options.priority,
                deadline=deadline,
            )
        outcomes = _ranked(tokens, submitted, options)
        timings = Timings(
            tokenize_seconds=tokenized_at - started,
            queue_seconds=submitted.queue_seconds if submitted else 0.0,
            compute_seconds=submitted.compute_seconds if submitted else 0.0,
            total_seconds=time.monotonic() - started,
        )
        return RerankResult(
            outcomes=_best(outcomes, options.top_n),
            input_tokens=sum(outcome.num_tokens for outcome in outcomes)
            + (len(tokens.prefix) if good else 0),
            num_documents=len(documents),
            num_truncated=sum(outcome.truncated for outcome in outcomes),
            num_failed=sum(outcome.error is not None for outcome in outcomes),
            timings=timings,
        )

    async def tokenize(self, request: TokenizeRequest) -> list[Tokenized | EmbedfleetError]:
        """Show the exact ids that each document would be scored as, prompt included."""
        self._check_count("texts", len(request.texts))
        self._check_instruction(request.instruction)
        options = RerankOptions(instruction=request.instruction, truncation=request.truncation)
        tokens = await self._tokenized(request.query, request.texts, options)
        # The wire has no shared prefix: each answer repeats it, which a query's own work does not.
        self._check_answer(
            sum(
                len(tokens.prefix) + len(document.token_ids)
                for document in tokens.documents
                if isinstance(document, Tokenized)
            )
        )
        return [
            Tokenized(np.concatenate((tokens.prefix, document.token_ids)), document.truncated)
            if isinstance(document, Tokenized)
            else document
            for document in tokens.documents
        ]

    async def golden_outputs(self, golden: Golden) -> Outputs:
        """Score the golden documents one by one; those that are too long are left out."""
        options = RerankOptions(instruction=golden.instruction)
        found: dict[int, Float32Array] = {}
        try:
            tokens = self._tokenize(GOLDEN_QUERY, GOLDEN_DOCUMENTS, options, golden.instruction)
        except InvalidRequest:
            return found
        for place, document in enumerate(tokens.documents):
            if isinstance(document, EmbedfleetError):
                continue
            try:
                row = await row_of(self._batcher, document.token_ids, tokens.prefix)
            except TooLarge:
                continue
            found[place] = row.reshape(1)
        return found

    def _check_settings(self, settings: ReplicaSettings) -> None:
        least = self._tokenize.least_tokens(settings.default_instruction)
        check_pair(self._model.max_tokens, least)

    async def _tokenized(
        self, query: str, documents: Sequence[str | None], options: RerankOptions
    ) -> RerankTokens:
        """Tokenize a request, off the event loop unless it is short."""
        default = self.settings.default_instruction
        instruction = default if options.instruction is None else options.instruction
        head = len(rerank_head(instruction, query))
        return await self._off_loop(
            head + sum(len(document or "") for document in documents),
            lambda: self._tokenize(query, documents, options, default),
            options.priority,
        )

    def _check(self, documents: Sequence[str | None], options: RerankOptions) -> None:
        self._check_contract(options.expected_contract_hash)
        self._check_count("documents", len(documents))
        self._check_instruction(options.instruction)
        if options.top_n == 0:
            raise InvalidRequest(
                "top_n is 0; ask for at least 1, or leave it out for all documents.", field="top_n"
            )


def _ranked(
    tokens: RerankTokens, submitted: Submitted | None, options: RerankOptions
) -> list[RerankOutcome]:
    """Join documents with their scores, best first, ties and failures in the request's order.

    Log-odds give the order: probabilities near 0 and 1 are equal where these still differ.
    """
    ranked: list[tuple[float, RerankOutcome]] = []
    row = 0
    for index, document in enumerate(tokens.documents):
        if isinstance(document, EmbedfleetError) or submitted is None:
            error = document if isinstance(document, EmbedfleetError) else None
            ranked.append((0.0, RerankOutcome(index, error=error)))
            continue
        error = submitted.errors.get(row)
        # Rows have no columns where no sequence of the request got one.
        log_odds = 0.0 if error else float(submitted.rows[row])
        score = log_odds if options.raw_scores else float(probabilities(np.array(log_odds)))
        row += 1
        outcome = RerankOutcome(
            index,
            score=0.0 if error else score,
            num_tokens=len(document.token_ids),
            truncated=document.truncated,
            error=error,
        )
        ranked.append((log_odds, outcome))
    ranked.sort(key=lambda pair: (pair[1].error is not None, -pair[0]))
    return [outcome for _, outcome in ranked]


def _best(outcomes: list[RerankOutcome], top_n: int | None) -> list[RerankOutcome]:
    """Keep the best scores, and every failure: whether one is told must not depend on the cut."""
    if top_n is None:
        return outcomes
    scored = [outcome for outcome in outcomes if outcome.error is None]
    return scored[:top_n] + outcomes[len(scored) :]
