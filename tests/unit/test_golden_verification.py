"""Replicas that run: what gives the golden outputs serves, what does not says how far off it is."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drifted import EMBEDDED, drifted

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.packing import PackedBatch
from embedfleet.batching.planner import Limits
from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.engine.base import YieldPoint
from embedfleet.errors import GoldenMismatch, Overloaded
from embedfleet.golden import GOLDEN_DOCUMENTS, GOLDEN_QUERY, GOLDEN_TEXTS, Golden, measured
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, RerankOptions, Role
from embedfleet.rendering.replica import GoldenSettings, ReplicaArguments, ReplicaSettings
from embedfleet.resources.shared import Batching
from embedfleet.runtime import EmbedderRuntime, ModelRuntime, RerankerRuntime, load_model
from embedfleet.runtime.verification import row_of


@asynccontextmanager
async def replica(
    role: Role, source: str = "", settings: ReplicaSettings | None = None, **arguments: Any
) -> AsyncIterator[Any]:
    given = ReplicaArguments(name="m", role=role, source=source or EMBEDDED[role], **arguments)
    kind = EmbedderRuntime if role is Role.EMBEDDER else RerankerRuntime
    runtime: ModelRuntime = kind(load_model(given, 1), ReplicaSettings())
    runtime.start()
    try:
        await runtime.reconfigure(settings or ReplicaSettings())
        yield runtime
    finally:
        await runtime.close()


async def embedded(runtime: EmbedderRuntime) -> list[Any]:
    """Embed the golden texts as any client would."""
    found = []
    for text in GOLDEN_TEXTS:
        options = EmbedOptions(text.input_type)
        result = await runtime.embed([EmbedItem(text=text.text)], options)
        found.append(np.frombuffer(result.outcomes[0].data, "<f4"))
    return found


async def scored(runtime: RerankerRuntime) -> list[float]:
    options = RerankOptions(raw_scores=True)
    result = await runtime.rerank(GOLDEN_QUERY, GOLDEN_DOCUMENTS, options)
    return [o.score for o in sorted(result.outcomes, key=lambda outcome: outcome.index)]


async def golden_of(role: Role, **arguments: Any) -> Golden:
    async with replica(role, **arguments) as runtime:
        rows = await embedded(runtime) if role is Role.EMBEDDER else await scored(runtime)
        outputs = {place: np.atleast_1d(np.float32(row)) for place, row in enumerate(rows)}
        contract = runtime.provenance.contract_hash
    return Golden.of(role, contract, DEFAULT_INSTRUCTION, outputs)


def held_to(golden: Golden, bound: float = 0.99, **others: Any) -> ReplicaSettings:
    return ReplicaSettings(golden=GoldenSettings(golden=golden, bound=bound), **others)


@pytest.mark.parametrize("role", Role)
async def test_what_clients_got_is_what_a_new_replica_gives(role: Role) -> None:
    golden = await golden_of(role)
    async with replica(role, settings=held_to(golden, 0.99999)) as runtime:
        assert runtime.settings.golden is not None


@pytest.mark.parametrize("dimension", [32, 64])
async def test_leading_components_are_enough(dimension: int) -> None:
    golden = await golden_of(Role.EMBEDDER)
    cut = {place: row[:dimension] for place, row in golden.decoded().items()}
    narrow = Golden.of(Role.EMBEDDER, golden.contract_hash, DEFAULT_INSTRUCTION, cut)
    assert narrow.dimension == dimension
    async with replica(Role.EMBEDDER, settings=held_to(narrow, 0.99999)):
        pass


async def test_a_drifted_embedder_does_not_start_and_says_the_cosine(tmp_path: Path) -> None:
    golden = await golden_of(Role.EMBEDDER)
    source = drifted(tmp_path / "m", Role.EMBEDDER, 0.3)
    async with replica(Role.EMBEDDER, source) as runtime:
        now, contract = await embedded(runtime), runtime.provenance.contract_hash
    was = golden.decoded()
    width = golden.dimension
    cosines = [
        float(was[i] @ now[i][:width] / np.linalg.norm(was[i]) / np.linalg.norm(now[i][:width]))
        for i in range(8)
    ]
    assert 0.1 < min(cosines) < 0.99
    same_contract = golden.model_copy(update={"contract_hash": contract})
    with pytest.raises(GoldenMismatch) as refused:
        async with replica(Role.EMBEDDER, source, held_to(same_contract)):
            pass
    assert measured(str(refused.value)).worst_cosine == pytest.approx(min(cosines), abs=2e-4)
    assert f"of golden text {int(np.argmin(cosines))}," in str(refused.value)
    async with replica(Role.EMBEDDER, source, held_to(same_contract, min(cosines) - 0.01)):
        pass


async def test_a_drifted_reranker_does_not_start_and_says_the_agreement(tmp_path: Path) -> None:
    golden = await golden_of(Role.RERANKER)
    source = drifted(tmp_path / "m", Role.RERANKER, 0.5)
    async with replica(Role.RERANKER, source) as runtime:
        now, contract = await scored(runtime), runtime.provenance.contract_hash
    was = [float(golden.decoded()[place][0]) for place in range(8)]
    pairs = [(i, j) for i in range(8) for j in range(i)]
    agreement = sum(np.sign(was[i] - was[j]) * np.sign(now[i] - now[j]) for i, j in pairs) / 28
    assert agreement < 0.9
    same_contract = golden.model_copy(update={"contract_hash": contract})
    with pytest.raises(GoldenMismatch) as refused:
        async with replica(Role.RERANKER, source, held_to(same_contract, 0.9)):
            pass
    said = measured(str(refused.value)).rank_agreement
    assert said == pytest.approx(agreement, abs=2e-4)


async def test_other_files_are_another_contract_and_the_cosine_is_said(tmp_path: Path) -> None:
    golden = await golden_of(Role.EMBEDDER)
    source = drifted(tmp_path / "m", Role.EMBEDDER, 0.001)
    with pytest.raises(GoldenMismatch, match=golden.contract_hash) as refused:
        async with replica(Role.EMBEDDER, source, held_to(golden, 0.0)):
            pass
    cosine = measured(str(refused.value)).worst_cosine
    assert cosine is not None
    assert cosine > 0.99


async def test_outputs_of_the_other_role_are_refused() -> None:
    golden = await golden_of(Role.RERANKER)
    with pytest.raises(GoldenMismatch, match="served as embedder"):
        async with replica(Role.EMBEDDER, settings=held_to(golden)):
            pass


async def test_a_replica_that_runs_keeps_its_settings_when_it_refuses_others() -> None:
    golden = await golden_of(Role.EMBEDDER)
    turned = {place: -row for place, row in golden.decoded().items()}
    wrong = Golden.of(Role.EMBEDDER, golden.contract_hash, DEFAULT_INSTRUCTION, turned)
    async with replica(Role.EMBEDDER, settings=held_to(golden, default_dimension=64)) as runtime:
        with pytest.raises(GoldenMismatch, match=r"worst cosine -1\.0000"):
            await runtime.reconfigure(held_to(wrong, default_dimension=32))
        assert runtime.settings == held_to(golden, default_dimension=64)
        result = await runtime.embed([EmbedItem(text="x")], EmbedOptions(InputType.DOCUMENT))
        assert result.dimension == 64


async def test_the_same_outputs_are_compared_once() -> None:
    golden = await golden_of(Role.EMBEDDER)
    async with replica(Role.EMBEDDER, settings=held_to(golden)) as runtime:
        done = runtime.stats().sequences
        await runtime.reconfigure(held_to(golden, default_dimension=64))
        assert runtime.stats().sequences == done
        await runtime.reconfigure(held_to(golden, 0.5))
        assert runtime.stats().sequences == done + len(GOLDEN_TEXTS)


async def test_no_limit_or_instruction_of_requests_stands_in_the_way() -> None:
    golden = await golden_of(Role.EMBEDDER)
    tight = Batching(max_items_per_request=1, max_queued_tokens=1024, max_batch_tokens=64)
    settings = held_to(
        golden, batching=tight, default_instruction="Other", allow_instruction_override=False
    )
    async with replica(Role.EMBEDDER, settings=settings) as runtime:
        await runtime.reconfigure(settings.model_copy(update={"golden": None}))
        await runtime.reconfigure(settings)


async def test_a_full_queue_only_delays_it() -> None:
    opened = threading.Event()

    def run(batch: PackedBatch, yield_point: YieldPoint | None) -> Any:
        opened.wait(30)
        return np.add.reduceat(batch.token_ids, batch.cu_seqlens[:-1]).astype(np.float32)

    batcher = Batcher(run, Limits(8, 8, 8, max_queued_items=1), name="m")
    batcher.start()
    ids = np.array([1, 2, 3])
    running = asyncio.create_task(batcher.submit([ids]))
    while not batcher.stats().running_tokens:
        await asyncio.sleep(0.001)
    waiting = asyncio.create_task(batcher.submit([ids]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batcher.submit([ids])
    delayed = asyncio.create_task(row_of(batcher, ids))
    await asyncio.sleep(0)
    assert not delayed.done()
    opened.set()
    assert (await delayed).item() == 6
    await asyncio.gather(running, waiting)
    await batcher.close()


@pytest.mark.parametrize("max_tokens", [16, 64])
async def test_texts_that_are_too_long_are_left_out(max_tokens: int) -> None:
    golden = await golden_of(Role.EMBEDDER)
    settings = held_to(golden, 0.99999)
    async with replica(Role.EMBEDDER, settings=settings, max_tokens=max_tokens) as runtime:
        assert len(await runtime.golden_outputs(golden)) < len(GOLDEN_TEXTS)


async def test_a_reranker_without_room_for_any_document_cannot_be_verified() -> None:
    golden = await golden_of(Role.RERANKER)
    with pytest.raises(GoldenMismatch, match=re.escape("Raise spec.maxPairTokens")):
        async with replica(Role.RERANKER, settings=held_to(golden), max_tokens=72):
            pass


async def test_what_echo_gives_means_nothing() -> None:
    golden = await golden_of(Role.EMBEDDER)
    async with replica(Role.EMBEDDER, settings=held_to(golden), backend="echo") as runtime:
        assert runtime.stats().sequences == 0
