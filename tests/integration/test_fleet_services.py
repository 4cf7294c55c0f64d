"""What a fleet says of itself: services, methods, models, health; to gRPC tools as they are."""

import json
import subprocess

import grpc
import pytest
from fleet_calls import TIMEOUT_SECONDS, Refusal, pairs, texts
from go_tools import missing_go, tool
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from embedfleet.serving.services import SERVICES
from embedfleet.v1 import model_pb2

REFLECTION = {"grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"}
ANSWERED = {
    "embedfleet.v1.EmbeddingService",
    "embedfleet.v1.RerankingService",
    "embedfleet.v1.ModelService",
    "grpc.health.v1.Health",
}
UNANSWERED = [
    (service, method, rpc)
    for service, methods in SERVICES.items()
    if service not in ANSWERED
    for method, rpc in methods.items()
]
Health = health_pb2.HealthCheckResponse


def health(caller, name, kind="unary_unary", method="Check"):
    call = getattr(caller.channel, kind)(
        f"/grpc.health.v1.Health/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=Health.FromString,
    )
    return call(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_SECONDS)


def test_reflection_lists_every_service(caller):
    listed = set(ProtoReflectionDescriptorDatabase(caller.channel).get_services())
    assert listed - REFLECTION == SERVICES.keys()
    assert listed & REFLECTION


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_reflection_describes_the_published_messages(caller, service):
    database = ProtoReflectionDescriptorDatabase(caller.channel)
    file = database.FindFileContainingSymbol(service)
    (described,) = [s for s in file.service if f"{file.package}.{s.name}" == service]
    assert {method.name for method in described.method} == SERVICES[service].keys()
    # The wire twins, in which text is bytes, are nobody's business.
    assert not any("wire" in method.input_type for method in described.method)


@pytest.mark.parametrize(
    "name",
    ["", "embedfleet.v1.EmbeddingService", "tei.v1.Embed", "docs", "relevance", "rerank-small"],
)
def test_health_of_what_is_there(caller, name):
    assert health(caller, name).status == Health.SERVING
    watch = health(caller, name, "unary_stream", "Watch")
    assert next(watch).status == Health.SERVING
    watch.cancel()


def test_health_of_what_is_not_there(caller):
    with pytest.raises(grpc.RpcError) as refused:
        health(caller, "nobody")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "'nobody'" in refused.value.details()
    watch = health(caller, "nobody", "unary_stream", "Watch")
    assert next(watch).status == Health.SERVICE_UNKNOWN
    watch.cancel()


def test_health_of_everything(caller):
    call = caller.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=health_pb2.HealthListRequest.SerializeToString,
        response_deserializer=health_pb2.HealthListResponse.FromString,
    )
    statuses = call(health_pb2.HealthListRequest(), timeout=TIMEOUT_SECONDS).statuses
    assert statuses.keys() == {"", *SERVICES, "docs", "relevance"}
    assert {each.status for each in statuses.values()} == {Health.SERVING}


def test_models_are_listed(caller):
    listed = caller.call("ModelService/ListModels", model_pb2.ListModelsRequest()).models
    docs, relevance = listed
    assert (docs.name, list(docs.aliases)) == ("docs", ["text-embedding-3-small"])
    assert (docs.role, docs.state) == (model_pb2.EMBEDDER, model_pb2.READY)
    assert (docs.native_dimension, docs.default_dimension, docs.max_tokens) == (256, 256, 1000)
    assert (docs.device, docs.source) == ("cpu", "embedded/embedder")
    assert docs.max_items_per_request == 2048
    assert len(docs.output_types) == 6
    assert docs.contract.weights_digest != relevance.contract.weights_digest
    assert (relevance.name, relevance.role) == ("relevance", model_pb2.RERANKER)
    assert (relevance.native_dimension, list(relevance.output_types)) == (0, [])
    for name, model in (("docs", docs), ("rerank-small", relevance)):
        asked = model_pb2.GetModelRequest(model=name)
        assert caller.call("ModelService/GetModel", asked).model == model
        asked = model_pb2.ListModelsRequest(model=name)
        assert list(caller.call("ModelService/ListModels", asked).models) == [model]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("EmbeddingService/Embed", texts("doc", "a")),
        ("RerankingService/Rerank", pairs("doc", "a", "b")),
        ("ModelService/Tokenize", model_pb2.TokenizeRequest(model="doc", texts=["a"])),
        ("ModelService/GetModel", model_pb2.GetModelRequest(model="doc")),
        ("ModelService/ListModels", model_pb2.ListModelsRequest(model="doc")),
    ],
)
def test_unknown_models_are_answered_with_the_known_ones(caller, method, request_):
    refused = caller.refusal(method, request_)
    assert (refused.code, refused.reason, refused.field) == (
        grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model",
    )  # fmt: skip
    for part in ("'doc'", "docs (embedder)", "relevance (reranker)"):
        assert part in refused.message


@pytest.mark.parametrize(
    ("service", "method", "rpc"), UNANSWERED, ids=[f"{s}/{m}" for s, m, _ in UNANSWERED]
)
def test_methods_without_an_answer_say_so(caller, service, method, rpc):
    kind = "stream_stream" if rpc.client_stream else "unary_unary"
    call = getattr(caller.channel, kind)(
        f"/{service}/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=empty_pb2.Empty.FromString,
    )
    request = iter([rpc.request()]) if rpc.client_stream else rpc.request()
    take = list if rpc.client_stream else iter
    with pytest.raises(grpc.RpcError) as refused:
        take(call(request, timeout=TIMEOUT_SECONDS))
    refusal = Refusal.of(refused.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED")
    assert rpc.request.DESCRIPTOR.full_name in refusal.message
    assert "embedfleet.v1.EmbeddingService" in refusal.message


def test_services_that_nobody_knows_are_refused(caller):
    call = caller.channel.unary_unary("/no.such.Service/Method")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", timeout=TIMEOUT_SECONDS)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def grpcurl(fleet):
    """The real program, without metadata and without proto files."""
    if not tool("grpcurl").exists():
        pytest.skip(missing_go() or "grpcurl is not built: make tools")

    def run(*arguments):
        command = [tool("grpcurl"), "-plaintext", "-max-time", "60", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    return run


def test_grpcurl_lists_and_describes(fleet, grpcurl):
    listed = grpcurl(fleet.endpoint, "list")
    assert set(listed.stdout.split()) - REFLECTION == SERVICES.keys(), listed.stderr
    described = grpcurl(fleet.endpoint, "describe", "embedfleet.v1.EmbeddingService")
    assert "rpc Embed ( .embedfleet.v1.EmbedRequest )" in described.stdout, described.stderr
    described = grpcurl(fleet.endpoint, "describe", "embedfleet.v1.EmbedRequest")
    assert "string model = 1;" in described.stdout, described.stderr


def test_grpcurl_calls(fleet, grpcurl):
    asked = {"model": "docs", "items": [{"text": "hello"}], "inputType": "DOCUMENT"}
    answered = grpcurl(
        "-d", json.dumps(asked), fleet.endpoint, "embedfleet.v1.EmbeddingService/Embed"
    )
    assert answered.returncode == 0, answered.stderr
    assert len(json.loads(answered.stdout)["embeddings"][0]["values"]) == 256
    asked = {"model": "relevance", "query": "q", "documents": ["a", "b"]}
    answered = grpcurl(
        "-d", json.dumps(asked), fleet.endpoint, "embedfleet.v1.RerankingService/Rerank"
    )
    assert answered.returncode == 0, answered.stderr
    assert len(json.loads(answered.stdout)["results"]) == 2


def test_grpcurl_shows_why_a_call_is_refused(fleet, grpcurl):
    refused = grpcurl(
        "-d", '{"model": "nobody"}', fleet.endpoint, "embedfleet.v1.EmbeddingService/Embed"
    )
    assert refused.returncode != 0
    for part in ("NotFound", "docs (embedder)", "MODEL_NOT_FOUND"):
        assert part in refused.stderr
