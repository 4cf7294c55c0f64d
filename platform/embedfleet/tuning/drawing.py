"""Examples of a step into token ids, for an embedder or a reranker.

Tokenized by what serving uses, prompts and limits included, so that the two cannot differ. Every
worker draws the same step and takes its own part of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from embedfleet.errors import EmbedfleetError, InvalidRequest
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, RerankOptions, Truncation
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, rerank_head
from embedfleet.tokenization import EmbeddingTokenizer, RerankingTokenizer, Tokenized, Tokenizer
from embedfleet.tuning.batches import ContrastiveRows, PairRows, Share, TokenBatch
from embedfleet.tuning.contrast import document_ids
from embedfleet.tuning.corpus import Corpus
from embedfleet.tuning.examples import Example
from embedfleet.tuning.identity import text_key
from embedfleet.tuning.sampling import Plan
from embedfleet.tuning.sections import EmbedderSequence, RerankerSequence

__all__ = ["EmbedderBatches", "RerankerBatches", "Source"]

_NEGATIVES: Final = 3
"""Stream of random numbers, beside those of sampling."""

_LEAST_DOCUMENT: Final = 8
"""Tokens of a document below which nothing can be learnt of a pair."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where batches come from.

    Attributes:
        seed: Decides which negatives are taken.
    """

    corpus: Corpus
    plan: Plan
    share: Share
    seed: int

    def drawn(self, step: int) -> tuple[list[Example], npt.NDArray[np.int64]]:
        """Read a step's examples, of all workers, each with the positive drawn for it first."""
        draw = self.plan.draw(step)
        count = len(draw.rows) // self.share.workers * self.share.workers
        rows = draw.rows[:count]
        examples = [
            replace(example, positives=_first(example.positives, chosen))
            for example, chosen in zip(
                self.corpus.read(rows), draw.positives[:count].tolist(), strict=True
            )
        ]
        return examples, rows

    def some(self, texts: tuple[str, ...], limit: int, step: int, row: int) -> tuple[str, ...]:
        """Take some of an example's texts: all if they are few, else others at each step."""
        if len(texts) <= limit:
            return texts
        order = np.random.default_rng([self.seed, _NEGATIVES, step, row])
        return tuple(texts[i] for i in np.sort(order.choice(len(texts), limit, replace=False)))


@dataclass(frozen=True, slots=True)
class _Known:
    """What tells whether a text of a step's examples answers a query.

    Attributes:
        queries: Key of each example's query.
        documents: Key of the positive that was drawn for each.
        answers: By a query's key, those of all positives of all examples that ask it.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    answers: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, drawn: Sequence[Example]) -> _Known:
        queries = tuple(text_key(example.query) for example in drawn)
        answers: defaultdict[str, set[str]] = defaultdict(set)
        for query, example in zip(queries, drawn, strict=True):
            answers[query].update(map(text_key, example.positives))
        documents = tuple(text_key(example.positives[0]) for example in drawn)
        return cls(queries, documents, {query: frozenset(own) for query, own in answers.items()})


class EmbedderBatches:
    """Queries, positives and negatives of an embedder."""

    def __init__(
        self, source: Source, sequence: EmbedderSequence, tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        self._source, self._sequence = source, sequence
        self._queries = EmbeddingTokenizer(tokenizer, min(sequence.max_query_tokens, max_tokens))
        documents = min(sequence.max_document_tokens, max_tokens)
        self._documents = EmbeddingTokenizer(tokenizer, documents)
        for instruction in (sequence.instruction, *source.corpus.instructions):
            try:
                self._queries([], EmbedOptions(InputType.QUERY, instruction=instruction), "")
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"sequence.maxQueryTokens: {error.message} Or raise maxQueryTokens.",
                    field="sequence.maxQueryTokens",
                ) from error

    def batch(self, step: int) -> TokenBatch:
        """Draw, read and tokenize a step's examples; the same for the same step."""
        drawn, rows = self._source.drawn(step)
        part = self._source.share.part(len(drawn))
        examples = [drawn[i] for i in part]
        limit = self._sequence.negatives
        negatives = [
            self._source.some(example.negatives, limit, step, int(rows[i]))
            for i, example in zip(part, examples, strict=True)
        ]
        positives = [example.positives[0] for example in examples]
        documents = positives + [text for texts in negatives for text in texts]
        tokenized = self._query_tokens(examples) + self._document_tokens(documents)
        return TokenBatch(
            sequences=[each.token_ids for each in tokenized],
            rows=_contrastive_rows(documents, [len(texts) for texts in negatives]),
            step=step,
            corpus_rows=rows,
            num_truncated=sum(each.truncated for each in tokenized),
        )

    def _query_tokens(self, examples: Sequence[Example]) -> list[Tokenized]:
        """Tokenize queries; one call for each instruction."""
        by_instruction: defaultdict[str | None, list[int]] = defaultdict(list)
        for place, example in enumerate(examples):
            by_instruction[example.instruction].append(place)
        found: dict[int, Tokenized] = {}
        for instruction, places in by_instruction.items():
            options = EmbedOptions(
                InputType.QUERY, instruction=instruction, truncation=Truncation.END
            )
            items = [EmbedItem(text=examples[place].query) for place in places]
            outcomes = self._queries(items, options, self._sequence.instruction)
            found.update(zip(places, _good(outcomes), strict=True))
        return [found[place] for place in range(len(examples))]

    def _document_tokens(self, texts: Sequence[str]) -> list[Tokenized]:
        options = EmbedOptions(InputType.DOCUMENT, truncation=Truncation.END)
        items = [EmbedItem(text=text) for text in texts]
        return _good(self._documents(items, options, self._sequence.instruction))


class RerankerBatches:
    """Pairs of a query with its positive and with negatives, as whole prompts."""

    def __init__(
        self, source: Source, sequence: RerankerSequence, tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        self._source, self._sequence = source, sequence
        limit = min(sequence.max_tokens, max_tokens)
        self._pairs = RerankingTokenizer(tokenizer, limit)
        for instruction in (sequence.instruction, *source.corpus.instructions):
            parts = (RERANK_PREFIX, rerank_head(instruction, ""), RERANK_SUFFIX)
            prompt = sum(len(tokenizer.encode_template(part)) for part in parts)
            if prompt + sequence.max_query_tokens + _LEAST_DOCUMENT > limit:
                raise InvalidRequest(
                    f"sequence.maxTokens is {limit}; the prompt takes {prompt} tokens with its "
                    f"instruction, a query up to {sequence.max_query_tokens}, and a document needs "
                    f"at least {_LEAST_DOCUMENT}. Raise it, or lower maxQueryTokens.",
                    field="sequence.maxTokens",
                )

    def batch(self, step: int) -> TokenBatch:
        """Draw, read and tokenize a step's examples; the same for the same step."""
        drawn, rows = self._source.drawn(step)
        known = _Known.of(drawn)
        negatives = [
            self._negatives(drawn, known, place, step, int(rows[place]))
            for place in range(len(drawn))
        ]
        tokenized: list[Tokenized] = []
        labels: list[int] = []
        for place in self._source.share.part(len(drawn)):
            documents = (drawn[place].positives[0], *negatives[place])
            tokenized.extend(self._tokens(drawn[place], documents))
            labels.extend([1] + [0] * len(negatives[place]))
        return TokenBatch(
            sequences=[each.token_ids for each in tokenized],
            rows=PairRows(
                torch.tensor(labels), len(drawn) + sum(len(texts) for texts in negatives)
            ),
            step=step,
            corpus_rows=rows,
            num_truncated=sum(each.truncated for each in tokenized),
        )

    def _negatives(
        self, drawn: Sequence[Example], known: _Known, place: int, step: int, row: int
    ) -> tuple[str, ...]:
        """Take an example's negatives, and where they are few, positives of other queries."""
        example, limit = drawn[place], self._sequence.negatives
        taken = self._source.some(example.negatives, limit, step, row)
        if len(taken) == limit:
            return taken
        order = np.random.default_rng([self._source.seed, _NEGATIVES, step, row])
        left_out = {*map(text_key, taken), *known.answers[known.queries[place]]}
        more: list[str] = []
        for other in order.permutation(len(drawn)):
            key = known.documents[other]
            if key not in left_out:
                left_out.add(key)
                more.append(drawn[other].positives[0])
            if len(taken) + len(more) == limit:
                break
        return (*taken, *more)

    def _tokens(self, example: Example, documents: Sequence[str]) -> list[Tokenized]:
        options = RerankOptions(instruction=example.instruction, truncation=Truncation.END)
        tokens = self._pairs(
            self._cut(example.query), documents, options, self._sequence.instruction
        )
        return [
            replace(each, token_ids=np.concatenate((tokens.prefix, each.token_ids)))
            for each in _good(tokens.documents)
        ]

    def _cut(self, query: str) -> str:
        """Take the end off a query that is too long; what is left of a character goes too."""
        limit = self._sequence.max_query_tokens
        if len(query) <= limit:  # no token spells less than one byte
            return query
        ids = self._pairs.tokenizer.encode(query)
        if len(ids) <= limit:
            return query
        return self._pairs.tokenizer.decode(ids[:limit]).rstrip("\ufffd") or query[:1]


def _contrastive_rows(documents: Sequence[str], counts: Sequence[int]) -> ContrastiveRows:
    """Number the sequences: queries, positives, then the negatives of each query in turn.

    Args:
        documents: Positives, then negatives.
        counts: Negatives of each query.
    """
    size, widest = len(counts), max(counts, default=0)
    number = np.array(counts, np.int64)
    mask = np.arange(widest)[None] < number[:, None]
    places = np.zeros((size, widest), np.int64)
    places[mask] = 2 * size + np.arange(int(number.sum()))
    ids = document_ids(documents)
    found = torch.from_numpy(places)
    negative_ids = ids[(found - size).clamp_min(0)] if widest else found
    return ContrastiveRows(size, found, torch.from_numpy(mask), ids[:size], negative_ids)


def _first(texts: tuple[str, ...], chosen: int) -> tuple[str, ...]:
    """Put one text before the others."""
    return (texts[chosen], *texts[:chosen], *texts[chosen + 1 :])


def _good(outcomes: Sequence[Tokenized | EmbedfleetError]) -> list[Tokenized]:
    """Return what was tokenized, or raise the first refusal: examples were checked before."""
    good: list[Tokenized] = []
    for outcome in outcomes:
        if isinstance(outcome, EmbedfleetError):
            raise InvalidRequest(f"an example cannot be tokenized: {outcome.message}")
        good.append(outcome)
    return good
