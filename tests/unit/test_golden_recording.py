"""Golden outputs recorded from a served model over gRPC, and kept where a team can pin them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.cli.main import run
from embedfleet.client import AsyncClient
from embedfleet.client.transport import METHODS
from embedfleet.errors import (
    ContractMismatch,
    EmbedfleetError,
    InvalidManifest,
    InvalidRequest,
    Unavailable,
    WrongRole,
)
from embedfleet.golden import Golden
from embedfleet.messages import Role
from embedfleet.rendering.replica import GoldenSettings, ReplicaArguments, ReplicaSettings
from embedfleet.resources import parse_manifests
from embedfleet.resources.shared import Batching
from embedfleet.runtime import EmbedderRuntime, ModelRuntime, RerankerRuntime, load_model
from embedfleet.serving.codec import decode_embed, decode_rerank, encode_embed, encode_rerank
from embedfleet.serving.describe import encode_model
from embedfleet.status import to_status
from embedfleet.wire import model_pb2
from embedfleet_operator.acting.golden import golden_config_map, golden_name, read_golden, record

Answer = Callable[[Any], Any]
CODES = {code.value[0]: code for code in grpc.StatusCode}


@asynccontextmanager
async def replica(
    role: Role, settings: ReplicaSettings, **arguments: Any
) -> AsyncIterator[ModelRuntime]:
    given = ReplicaArguments(name="docs", role=role, source=f"embedded/{role}", **arguments)
    kind = EmbedderRuntime if role is Role.EMBEDDER else RerankerRuntime
    runtime: ModelRuntime = kind(load_model(given, 1), ReplicaSettings())
    runtime.start()
    try:
        await runtime.reconfigure(settings)
        yield runtime
    finally:
        await runtime.close()


def answers(runtime: Any) -> dict[str, Answer]:
    """Answer as a replica does."""

    async def get_model(request: Any) -> Any:
        return model_pb2.GetModelResponse(model=encode_model(runtime.description()))

    async def embed(request: Any) -> Any:
        items, options = decode_embed(request)
        return encode_embed(await runtime.embed(items, options), runtime.provenance)

    async def rerank(request: Any) -> Any:
        query, documents, options = decode_rerank(request)
        result = await runtime.rerank(query, documents, options)
        return encode_rerank(result, runtime.provenance, None)

    return {"GetModel": get_model, "Embed": embed, "Rerank": rerank}


@asynccontextmanager
async def served(found: dict[str, Answer], seen: set[Any]) -> AsyncIterator[str]:
    """Serve answers on a port; `seen` collects the applications that were asked."""

    def handler(name: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            seen.add(dict(context.invocation_metadata()).get("application"))
            try:
                return await found[name](request)
            except EmbedfleetError as error:
                status = to_status(error)
                details = (("grpc-status-details-bin", status.SerializeToString()),)
                await context.abort(CODES[status.code], status.message, details)

        method = METHODS[name]
        return grpc.unary_unary_rpc_method_handler(
            handle, method.request.FromString, method.response.SerializeToString
        )

    server = grpc.aio.server()
    for name in found:
        service, _, rpc = METHODS[name].path.strip("/").partition("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {rpc: handler(name)}),)
        )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def recorded(found: dict[str, Answer], role: Role, seen: set[Any] | None = None) -> Golden:
    async with (
        served(found, set() if seen is None else seen) as endpoint,
        grpc.aio.insecure_channel(endpoint) as channel,
    ):
        return await record(channel, "emb-docs", "docs", role, 30.0)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "settings",
    [
        ReplicaSettings(),
        ReplicaSettings(default_dimension=32, allowed_dimensions=(32, 64)),
        ReplicaSettings(default_instruction="Find it", allow_instruction_override=False),
        ReplicaSettings(batching=Batching(max_items_per_request=1)),
    ],
    ids=["plain", "few-dimensions", "own-instruction", "one-item"],
)
async def test_what_was_recorded_is_what_a_replica_gives(
    role: Role, settings: ReplicaSettings
) -> None:
    seen: set[Any] = set()
    async with replica(role, settings) as runtime:
        golden = await recorded(answers(runtime), role, seen)
        contract = runtime.provenance.contract_hash
    assert seen == {"emb-docs"}
    assert (golden.role, golden.contract_hash) == (role, contract)
    assert golden.instruction == settings.default_instruction
    width = 64 if settings.allowed_dimensions else 256
    assert golden.dimension == (width if role is Role.EMBEDDER else 1)
    held = ReplicaSettings(golden=GoldenSettings(golden=golden, bound=0.99999))
    async with replica(role, held):
        pass


async def test_texts_that_are_too_long_are_recorded_as_missing() -> None:
    async with replica(Role.EMBEDDER, ReplicaSettings(), max_tokens=64) as runtime:
        golden = await recorded(answers(runtime), Role.EMBEDDER)
    assert 0 < len(golden.missing) < 8
    held = ReplicaSettings(golden=GoldenSettings(golden=golden, bound=0.99999))
    async with replica(Role.EMBEDDER, held):
        pass


async def test_a_reranker_without_room_for_any_document_gives_nothing() -> None:
    async with replica(Role.RERANKER, ReplicaSettings(), max_tokens=72) as runtime:
        with pytest.raises(InvalidRequest, match="72"):
            await recorded(answers(runtime), Role.RERANKER)


async def test_replicas_of_two_contracts_are_not_mixed() -> None:
    async with replica(Role.EMBEDDER, ReplicaSettings()) as runtime:
        found = answers(runtime)

        async def other(request: Any) -> Any:
            response = await answers(runtime)["GetModel"](request)
            response.model.contract_hash = b"v1:" + b"0" * 32
            return response

        with pytest.raises(ContractMismatch, match="v1:0000"):
            await recorded({**found, "GetModel": other}, Role.EMBEDDER)


async def test_a_model_of_the_other_role_is_refused() -> None:
    async with replica(Role.EMBEDDER, ReplicaSettings()) as runtime:
        with pytest.raises(WrongRole, match="served as embedder, not as reranker"):
            await recorded(answers(runtime), Role.RERANKER)


async def test_a_model_that_is_not_ready_says_why() -> None:
    async def starting(request: Any) -> Any:
        model = model_pb2.Model(
            name=b"docs", role=model_pb2.EMBEDDER, message=b"It is being loaded."
        )
        return model_pb2.GetModelResponse(model=model)

    with pytest.raises(Unavailable, match=r"docs is not ready: It is being loaded\."):
        await recorded({"GetModel": starting}, Role.EMBEDDER)


async def test_a_fleet_that_does_not_answer_is_a_failure_of_ours() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable):
            await record(channel, "emb-docs", "docs", Role.EMBEDDER, 5.0)


async def test_clients_record_the_same() -> None:
    async with replica(Role.EMBEDDER, ReplicaSettings()) as runtime:
        golden = await recorded(answers(runtime), Role.EMBEDDER)
        async with served(answers(runtime), set()) as endpoint, AsyncClient(endpoint) as client:
            assert await client.golden("docs") == golden


async def test_the_command_prints_what_a_spec_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        replica(Role.RERANKER, ReplicaSettings()) as runtime,
        served(answers(runtime), set()) as endpoint,
    ):
        given = ["golden", "--model", "docs", "--endpoint", endpoint]
        assert await asyncio.to_thread(run, given) == 0
        contract = runtime.provenance.contract_hash
    config_map = yaml.safe_load(capsys.readouterr().out)
    assert (config_map["kind"], config_map["metadata"]) == ("ConfigMap", {"name": "docs-golden"})
    assert Golden.from_json(config_map["data"]["golden.json"], "x").contract_hash == contract


HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
GIVEN = parse_manifests(
    f"{HEAD}kind: Fleet\nmetadata: {{name: f, namespace: search}}\n---\n"
    f"{HEAD}kind: Embedder\nmetadata: {{name: docs, namespace: search}}\n"
    "spec: {model: {source: embedded/embedder}}\n---\n"
    f"{HEAD}kind: Reranker\nmetadata: {{name: rel, namespace: search}}\n"
    "spec: {model: {source: embedded/reranker}, verification: {goldenConfigMapName: pinned}}\n"
)
DOCS, REL = GIVEN.embedders[0], GIVEN.rerankers[0]
GOLDEN = Golden.of(
    Role.EMBEDDER, f"v1:{'a' * 32}", DEFAULT_INSTRUCTION,
    {0: np.array([0.6, 0.8], np.float32)},
)  # fmt: skip


def test_a_config_map_keeps_them() -> None:
    made = golden_config_map(GIVEN.only_fleet(), DOCS, GOLDEN)
    assert (made["kind"], made["metadata"]["name"]) == ("ConfigMap", "docs-emb-golden")
    assert made["metadata"]["namespace"] == "search"
    assert made["metadata"]["labels"]["embedfleet.io/fleet"] == "f"
    assert golden_name(REL) == "rel-rrk-golden"
    assert read_golden(yaml.safe_load(yaml.safe_dump(made)), DOCS) == GOLDEN


@pytest.mark.parametrize(
    ("config_map", "model", "said"),
    [
        (None, REL, "ConfigMap pinned of spec.verification.goldenConfigMapName is missing"),
        (None, DOCS, "ConfigMap docs-emb-golden is missing"),
        ({"data": {"other": "x"}}, REL, "has no key golden.json"),
        ({}, REL, "has no key golden.json"),
        ({"data": {"golden.json": "{"}}, REL, "golden.json in ConfigMap pinned"),
        ({"data": {"golden.json": GOLDEN.to_json()}}, REL, "holds outputs of embedders"),
    ],
)
def test_a_config_map_that_is_not_right_is_refused(config_map: Any, model: Any, said: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        read_golden(config_map, model)
    assert said in str(refused.value)
