"""Where a replica tokenizes, and what it refuses before: a prompt counts as often as it is read."""

import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from embedfleet.errors import EmbedfleetError, TooLarge
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    InputType,
    Provenance,
    RerankOptions,
    Role,
    Truncation,
)
from embedfleet.rendering.replica import BatchingSettings, ReplicaArguments, ReplicaSettings
from embedfleet.runtime import EmbedderRuntime, RerankerRuntime, TokenizeRequest, load_model
from embedfleet.serving.describe import encode_tokenize
from embedfleet.tokenization import Tokenized, Tokenizer
from embedfleet.wire import model_pb2

WORDS = "find passages about rice and how it is cooked "
LONG = WORDS * 100
"""4,600 characters: of the prompt of many texts that are one letter each."""

QUERY = InputType.QUERY
WIDE = ReplicaSettings()
NARROW = ReplicaSettings(batching=BatchingSettings(max_queued_tokens=2048, max_queued_items=4096))


class Watched(Tokenizer):
    """A tokenizer that notes what it encodes, and on which thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.__dict__.update(tokenizer.__dict__)
        self.threads: set[int] = set()
        self.texts: list[str] = []

    def encode_batch(self, texts):
        self.threads.add(threading.get_ident())
        self.texts.extend(texts)
        return super().encode_batch(texts)


@pytest.fixture(scope="module")
def loaded():
    return {
        role: load_model(
            ReplicaArguments(name="m", role=role, source=f"embedded/{role}", backend="echo"), 1
        )
        for role in Role
    }


@asynccontextmanager
async def runtime_of(loaded, settings=WIDE):
    """Give a runtime and its tokenizer; a runtime of its own for each test, but files read once."""
    watched = Watched(loaded.tokenizer)
    kind = EmbedderRuntime if loaded.arguments.role is Role.EMBEDDER else RerankerRuntime
    runtime = kind(replace(loaded, tokenizer=watched), settings)
    watched.threads.clear()
    watched.texts.clear()
    runtime.start()
    try:
        yield runtime, watched
    finally:
        await runtime.close()


def shown(texts, instruction, query="", input_type=None):
    return TokenizeRequest(texts, input_type, instruction, query, Truncation.NONE)


async def embed(runtime, count, instruction):
    options = EmbedOptions(QUERY, instruction=instruction)
    return await runtime.embed([EmbedItem(text="q")] * count, options)


async def tokenize(runtime, count, instruction):
    return await runtime.tokenize(shown(["q"] * count, instruction, input_type=QUERY))


async def rerank(runtime, count, instruction):
    return await runtime.rerank("q", ["d"] * count, RerankOptions(instruction=instruction))


async def tokenize_pairs(runtime, count, instruction):
    return await runtime.tokenize(shown(["d"] * count, instruction, query="q"))


CALLS = [
    (Role.EMBEDDER, embed),
    (Role.EMBEDDER, tokenize),
    (Role.RERANKER, rerank),
    (Role.RERANKER, tokenize_pairs),
]


@pytest.mark.parametrize(("role", "call"), CALLS)
@pytest.mark.parametrize(
    ("count", "instruction", "on_the_loop"),
    [(2, "find", True), (2, LONG, False)],
    ids=["short", "long instruction"],
)
async def test_a_long_prompt_is_not_tokenized_on_the_event_loop(
    loaded, role, call, count, instruction, on_the_loop
):
    async with runtime_of(loaded[role]) as (runtime, watched):
        await call(runtime, count, instruction)
    assert (threading.get_ident() in watched.threads) is on_the_loop
    assert len(watched.threads) == 1


@pytest.mark.parametrize("call", [embed, tokenize])
async def test_a_prompt_counts_for_each_of_its_texts(loaded, call):
    """Alone it is short: 46 characters, but before 200 texts it is 9,200."""
    async with runtime_of(loaded[Role.EMBEDDER]) as (runtime, watched):
        await call(runtime, 200, WORDS)
    assert threading.get_ident() not in watched.threads


@pytest.mark.parametrize("call", [embed, tokenize])
async def test_a_prompt_that_cannot_fit_so_often_is_refused_before_any_text(loaded, call):
    async with runtime_of(loaded[Role.EMBEDDER], NARROW) as (runtime, watched):
        with pytest.raises(TooLarge) as refused:
            await call(runtime, 256, WORDS)
    prompt = f"Instruct: {WORDS}\nQuery:"
    assert watched.texts == [prompt]
    num_tokens = len(loaded[Role.EMBEDDER].tokenizer.encode(prompt))
    assert refused.value.field == "instruction"
    for part in (f"{num_tokens} tokens", "256 texts", "2,048", "maxQueuedTokens", "split"):
        assert part in refused.value.message


async def test_what_fits_the_queue_is_as_it_was(loaded):
    async with runtime_of(loaded[Role.EMBEDDER], NARROW) as (runtime, _):
        result = await embed(runtime, 16, WORDS)
    alone = loaded[Role.EMBEDDER].tokenizer.encode(f"Instruct: {WORDS}\nQuery:q")
    assert [outcome.num_tokens for outcome in result.outcomes] == [len(alone) + 1] * 16


@pytest.mark.parametrize(
    ("role", "texts"),
    [(Role.EMBEDDER, [LONG] * 4), (Role.RERANKER, ["d"] * 100)],
    ids=["texts", "prompts"],
)
async def test_no_more_ids_are_shown_than_the_queue_would_take(loaded, role, texts):
    request = shown(texts, None, query="q", input_type=InputType.DOCUMENT)
    async with runtime_of(loaded[role]) as (runtime, _):
        outcomes = await runtime.tokenize(request)
    num_tokens = sum(len(outcome.token_ids) for outcome in outcomes)
    assert num_tokens > 2048
    async with runtime_of(loaded[role], NARROW) as (runtime, _):
        with pytest.raises(TooLarge) as refused:
            await runtime.tokenize(request)
    assert refused.value.field == "texts"
    for part in (f"{num_tokens:,} tokens", "2,048", "maxQueuedTokens", "fewer texts"):
        assert part in refused.value.message


class Ids(np.ndarray):
    """Token ids that note on which thread they are read."""

    threads: set[int]

    def tolist(self):
        self.threads.add(threading.get_ident())
        return super().tolist()


async def test_ids_are_encoded_off_the_event_loop():
    ids = np.array([5, 6, 7]).view(Ids)
    ids.threads = set()
    outcomes = [Tokenized(ids), EmbedfleetError("no")]
    data = await encode_tokenize(outcomes, Provenance("m", "", "v1:0"))
    assert len(ids.threads) == 1
    assert threading.get_ident() not in ids.threads
    first, second = model_pb2.TokenizeResponse.FromString(data).texts
    assert list(first.ids) == [5, 6, 7]
    assert second.error.message == b"no"
