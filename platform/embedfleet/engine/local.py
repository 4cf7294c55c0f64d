"""Models in the calling process: text in, numpy out, no server, no Ray.

For notebooks, offline jobs and tests. Sequences run longest first in steps of a bounded number of
tokens, so that memory does not grow with the input; results come back in the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from embedfleet.batching.packing import pack
from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.engine.base import Engine
from embedfleet.engine.torch.engine import load_engine
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    Float32Array,
    InputType,
    OutputType,
    RerankOptions,
    Role,
    TokenIds,
    Truncation,
)
from embedfleet.scores import probabilities
from embedfleet.tokenization import (
    EmbeddingTokenizer,
    RerankingTokenizer,
    RerankTokens,
    Tokenized,
)
from embedfleet.vectors import Finish, check_dimension, finish

__all__ = ["LocalEmbedder", "LocalReranker", "load_embedder", "load_reranker"]

_STEP_TOKENS = {"cpu": 4096, "cuda": 32_768}


class _Local:
    """An engine that is closed with its block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._step_tokens = _STEP_TOKENS[engine.info.device.partition(":")[0]]

    def close(self) -> None:
        """Free the device."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LocalEmbedder(_Local):
    """Texts to vectors. Made by `load_embedder`; `tokenizer` is the checkpoint's."""

    def __init__(self, engine: Engine, tokenizer: EmbeddingTokenizer) -> None:
        super().__init__(engine)
        self.tokenizer = tokenizer

    def embed(
        self,
        texts: Sequence[str],
        input_type: InputType | str,
        *,
        instruction: str | None = None,
        dimension: int | None = None,
        truncation: Truncation | str = Truncation.NONE,
    ) -> Float32Array:
        """Embed texts: (n, dimension) of unit length.

        Args:
            texts: Each non-empty.
            input_type: `QUERY` or `DOCUMENT`; only queries carry an instruction.
            instruction: Replaces the default one.
            dimension: Leading components kept; None means all.
            truncation: What happens to a text over the limit.

        Raises:
            InvalidRequest: The first text or option that cannot be taken.
        """
        options = EmbedOptions(
            InputType(input_type), instruction=instruction, truncation=Truncation(truncation)
        )
        items = [EmbedItem(text=text) for text in texts]
        self._check(dimension)
        sequences = _all_good(self.tokenizer(items, options, DEFAULT_INSTRUCTION))
        return self.embed_tokens(sequences, dimension=dimension)

    def embed_tokens(
        self, sequences: Sequence[TokenIds], *, dimension: int | None = None
    ) -> Float32Array:
        """Embed what the tokenizer made of texts: (n, dimension) of unit length.

        Raises:
            InvalidRequest: The dimension is not one of the model's.
        """
        kept = self._check(dimension)
        vectors = np.empty((len(sequences), kept), np.float32)
        for rows in _steps(sequences, self._step_tokens):
            states = self.engine.embed(pack([sequences[row] for row in rows]))
            finished = finish(states, Finish(kept))
            if finished.errors:
                raise finished.errors[min(finished.errors)]
            vectors[rows] = np.frombuffer(b"".join(finished.data), "<f4").reshape(-1, kept)
        return vectors

    def _check(self, dimension: int | None) -> int:
        native = self.engine.info.native_dimension
        kept = native if dimension is None else dimension
        check_dimension(kept, native, (), OutputType.FLOAT32)
        return kept


class LocalReranker(_Local):
    """A query and documents to scores. Made by `load_reranker`; `tokenizer` is the checkpoint's."""

    def __init__(self, engine: Engine, tokenizer: RerankingTokenizer) -> None:
        super().__init__(engine)
        self.tokenizer = tokenizer

    def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        truncation: Truncation | str = Truncation.NONE,
    ) -> Float32Array:
        """Score documents against a query: (n,), probabilities of a yes.

        Args:
            query: What is searched for.
            documents: Each non-empty.
            instruction: Replaces the default one.
            truncation: What happens to a document over the limit.

        Raises:
            InvalidRequest: The query, or the first document, that cannot be taken.
        """
        options = RerankOptions(instruction=instruction, truncation=Truncation(truncation))
        tokens = self.tokenizer(query, documents, options, DEFAULT_INSTRUCTION)
        return probabilities(self.score_tokens(tokens))

    def score_tokens(self, tokens: RerankTokens) -> Float32Array:
        """Score what the tokenizer made of a query and documents: (n,), log-odds of a yes.

        Raises:
            InvalidRequest: The first document that cannot be scored.
        """
        sequences = _all_good(tokens.documents)
        logits = np.empty(len(sequences), np.float32)
        for rows in _steps(sequences, self._step_tokens):
            batch = pack([sequences[row] for row in rows], [tokens.prefix], [0] * len(rows))
            logits[rows] = self.engine.score(batch)
        return logits


def load_embedder(
    source: str | PathLike[str], *, revision: str = "", options: EngineOptions | None = None
) -> LocalEmbedder:
    """Load an embedder into this process.

    Args:
        source: A folder, a `file://` address, `embedded/NAME`, or a hub name.
        revision: Commit of a hub source; empty means the one pinned for a published model.
        options: Device, type, threads.

    Raises:
        CheckpointError: Its files are not what they should be.
        InvalidRequest: The options ask for what the device or the model cannot do.
    """
    checkpoint = open_checkpoint(resolve(fspath(source), revision), Role.EMBEDDER)
    tokenizer = checkpoint.load_tokenizer()
    engine = load_engine(
        Role.EMBEDDER, checkpoint.config, checkpoint.tensors(), options or EngineOptions()
    )
    return LocalEmbedder(engine, EmbeddingTokenizer(tokenizer, engine.info.max_tokens))


def load_reranker(
    source: str | PathLike[str], *, revision: str = "", options: EngineOptions | None = None
) -> LocalReranker:
    """Load a reranker into this process; arguments and errors as for an embedder."""
    checkpoint = open_checkpoint(resolve(fspath(source), revision), Role.RERANKER)
    tokenizer = checkpoint.load_tokenizer()
    engine = load_engine(
        Role.RERANKER,
        checkpoint.config,
        checkpoint.tensors(),
        options or EngineOptions(),
        score_token_ids=tokenizer.yes_no_ids(),
    )
    return LocalReranker(engine, RerankingTokenizer(tokenizer, engine.info.max_tokens))


def _all_good(outcomes: Sequence[Tokenized | EmbedfleetError]) -> list[TokenIds]:
    """Return the sequences, or raise the first error."""
    for outcome in outcomes:
        if isinstance(outcome, EmbedfleetError):
            raise outcome
    return [outcome.token_ids for outcome in outcomes if isinstance(outcome, Tokenized)]


def _steps(sequences: Sequence[TokenIds], step_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Group positions, longest first, so that each group has about `step_tokens` tokens."""
    if not sequences:
        return
    lengths = np.array([len(sequence) for sequence in sequences])
    order = np.argsort(-lengths, kind="stable")
    started_at = np.cumsum(lengths[order]) - lengths[order]
    cuts = np.flatnonzero(np.diff(started_at // step_tokens)) + 1
    yield from np.split(order, cuts)
