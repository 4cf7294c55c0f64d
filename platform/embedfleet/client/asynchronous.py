"""The asyncio client: one channel, for the event loop of its first call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import numpy.typing as npt

from embedfleet.client.async_calls import AsyncCalls
from embedfleet.client.batches import Item, batches_of, split
from embedfleet.client.embedding import EmbedWork, refuse_other_space, vectors_of
from embedfleet.client.golden import golden_of, golden_works
from embedfleet.client.models import TokenizeWork, to_model_info, waiting_for
from embedfleet.client.options import (
    ClientConfig,
    EmbedKeywords,
    RerankKeywords,
    Tls,
    TokenizeKeywords,
    embed_options,
    rerank_options,
    seconds,
    tokenize_options,
)
from embedfleet.client.reranking import RerankWork
from embedfleet.client.results import Embeddings, ModelInfo, Ranking, Tokenization
from embedfleet.client.retrying import READY_POLL_SECONDS, Deadline
from embedfleet.client.transport import METHODS, Target
from embedfleet.errors import DeadlineExceeded, Unavailable
from embedfleet.golden import Golden
from embedfleet.messages import InputType
from embedfleet.wire import model_pb2

__all__ = ["AsyncClient"]


class AsyncClient:
    """A fleet, called and awaited.

    Args:
        endpoint: `host:port`.
        tls: Files of an encrypted connection; None means an unencrypted one.
        token: Bearer token; without `tls` it travels unencrypted.
        config: Timeouts, batch sizes, retries.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        tls: Tls | None = None,
        token: str = "",
        config: ClientConfig | None = None,
    ) -> None:
        self._config = config or ClientConfig()
        self._calls = AsyncCalls(Target(endpoint, tls, token), self._config)

    async def embed(
        self,
        model: str,
        texts: Iterable[Item],
        *,
        input_type: InputType | str,
        **keywords: Unpack[EmbedKeywords],
    ) -> Embeddings:
        """Embed texts, or arrays of token ids, however many.

        Args:
            model: Name or alias of an embedder.
            texts: Each a text, or ids of the model's tokenizer without special tokens.
            input_type: QUERY or DOCUMENT: only queries carry an instruction.
            keywords: See `EmbedKeywords`. The timeout is for the whole call.
        """
        options, call = embed_options(input_type, keywords, self._config.timeout_seconds)
        work = EmbedWork(model, options, call)
        batches = batches_of(texts, "texts", self._config)
        return work.join(await self._calls.all(work, batches, call.timeout_seconds))

    async def embed_queries(
        self, model: str, texts: Iterable[Item], **keywords: Unpack[EmbedKeywords]
    ) -> Embeddings:
        """Embed what is asked: the model's instruction goes in front."""
        return await self.embed(model, texts, input_type=InputType.QUERY, **keywords)

    async def embed_documents(
        self, model: str, texts: Iterable[Item], **keywords: Unpack[EmbedKeywords]
    ) -> Embeddings:
        """Embed what is searched in."""
        return await self.embed(model, texts, input_type=InputType.DOCUMENT, **keywords)

    async def embed_batches(
        self,
        model: str,
        texts: Iterable[Item],
        *,
        input_type: InputType | str,
        **keywords: Unpack[EmbedKeywords],
    ) -> AsyncGenerator[tuple[int, Embeddings], None]:
        """Embed an input of any length in bounded memory, batch by batch, in order.

        Reads ahead of what was yielded by no more than the requests in flight. The timeout bounds
        each request by itself. Errors are keyed by place in the whole input. Leave a loop early
        through `contextlib.aclosing`, so that requests under way are cancelled at once.

        Yields:
            The place of the batch's first item in the input, and the batch's results.
        """
        options, call = embed_options(input_type, keywords, self._config.stream_timeout_seconds)
        work = EmbedWork(model, options, call)
        batches = split(texts, self._config.max_batch_items, self._config.max_batch_bytes)
        first = None
        parts = self._calls.stream(work, batches, call.timeout_seconds)
        async with aclosing(parts):
            async for batch, part in parts:
                first = part if first is None else first
                refuse_other_space(first, part)
                yield batch.start, part

    async def embed_stream(
        self,
        model: str,
        texts: Iterable[Item],
        *,
        input_type: InputType | str,
        **keywords: Unpack[EmbedKeywords],
    ) -> AsyncGenerator[tuple[int, npt.NDArray[Any]], None]:
        """Embed an input of any length in bounded memory: each item's place and vector, in order.

        With `on_item_error="keep"` failed items are left out; `embed_batches` also gives their
        errors, scales and token counts.
        """
        parts = self.embed_batches(model, texts, input_type=input_type, **keywords)
        async with aclosing(parts):
            async for start, part in parts:
                for index, vector in vectors_of(start, part):
                    yield index, vector

    async def rerank(
        self, model: str, query: str, documents: Iterable[str], **keywords: Unpack[RerankKeywords]
    ) -> Ranking:
        """Score documents against a query, best first.

        Args:
            model: Name or alias of a reranker.
            query: What was asked.
            documents: However many.
            keywords: See `RerankKeywords`. The timeout is for the whole call.
        """
        options, call = rerank_options(keywords, self._config.timeout_seconds)
        listed = documents if isinstance(documents, Sequence) else list(documents)
        work = RerankWork(model, query, listed, options, call)
        batches = batches_of(listed, "documents", self._config)
        return work.join(await self._calls.all(work, batches, call.timeout_seconds))

    async def tokenize(
        self, model: str, texts: Iterable[str], **keywords: Unpack[TokenizeKeywords]
    ) -> Tokenization:
        """Show the exact ids that a model would compute: of an embedder's texts, or documents."""
        options, call = tokenize_options(keywords, self._config.timeout_seconds)
        work = TokenizeWork(model, options, call)
        batches = batches_of(texts, "texts", self._config)
        return work.join(await self._calls.all(work, batches, call.timeout_seconds))

    async def models(self, *, timeout: float | None = None) -> tuple[ModelInfo, ...]:
        """List every model of the fleet, ready or not."""
        deadline = Deadline.after(seconds(timeout, self._config.timeout_seconds))
        response = await self._calls.one(
            METHODS["ListModels"], model_pb2.ListModelsRequest(), deadline
        )
        return tuple(to_model_info(model) for model in response.models)

    async def model(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """Describe one model by name or alias."""
        request = model_pb2.GetModelRequest(model=name.encode())
        deadline = Deadline.after(seconds(timeout, self._config.timeout_seconds))
        response = await self._calls.one(METHODS["GetModel"], request, deadline)
        return to_model_info(response.model)

    async def golden(self, model: str, *, timeout: float | None = None) -> Golden:
        """Record what a model gives for the golden set, so that later versions can be held to it.

        Args:
            model: Name or alias.
            timeout: Seconds for each of nine short requests.
        """
        limit = seconds(timeout, self._config.timeout_seconds)
        info = await self.model(model, timeout=limit)
        return golden_of(
            info,
            [
                (await self._calls.all(work, [batch], limit))[0]
                for work, batch in golden_works(info)
            ],
        )

    async def wait_ready(self, *models: str, timeout: float = 60.0) -> tuple[ModelInfo, ...]:
        """Wait until the named models are ready, or all of them; gives them all.

        Raises:
            DeadlineExceeded: Says which were not ready and why.
        """
        deadline = Deadline.after(seconds(timeout, self._config.timeout_seconds))
        waiting = "an answer"
        while True:
            try:
                found = await self.models(timeout=deadline.remaining())
                waiting = waiting_for(found, models)
            except Unavailable as error:
                waiting = error.message
            except DeadlineExceeded:
                raise deadline.exceeded(f"Still waiting for {waiting}.") from None
            else:
                if not waiting:
                    return found
            if deadline.left() <= READY_POLL_SECONDS:
                raise deadline.exceeded(f"Still waiting for {waiting}.")
            await asyncio.sleep(READY_POLL_SECONDS)

    async def close(self) -> None:
        """Close the channel; calls under way fail with Cancelled."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
