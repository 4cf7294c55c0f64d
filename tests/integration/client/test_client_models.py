"""Models, tokens, waiting for readiness, and the ways a connection can be secured."""

import asyncio
import subprocess
import threading
from collections import Counter

import grpc
import numpy as np
import pytest

from embedfleet import errors
from embedfleet.client import AsyncClient, Client, ClientConfig, Tls
from embedfleet.messages import OutputType, Role
from embedfleet.v1 import common_pb2, model_pb2


def listing(*states):
    """A fleet whose n-th listing is the n-th state; the last one stays."""
    calls = Counter()

    def answer(_request, _context):
        state = states[min(calls["all"], len(states) - 1)]
        calls["all"] += 1
        return model_pb2.ListModelsResponse(
            models=[
                model_pb2.Model(
                    name=name,
                    aliases=[f"{name}-alias"],
                    role=model_pb2.EMBEDDER,
                    state=model_pb2.READY if ready else model_pb2.NOT_READY,
                    message="" if ready else "0 of 1 replicas",
                )
                for name, ready in state.items()
            ]
        )

    return {"ListModels": answer}


def test_a_model_is_described_in_full(serve):
    described = model_pb2.Model(
        name="docs",
        role=model_pb2.RERANKER,
        state=model_pb2.READY,
        contract_hash="v1:abc",
        contract=model_pb2.Contract(pooling="last_token", template="qwen3"),
        allowed_dimensions=[64, 128],
        # 99 is of a release that this one does not know.
        output_types=[common_pb2.FLOAT32, common_pb2.INT8, 99],
        max_items_per_request=2048,
    )

    def answer(request, _context):
        assert request.model == "docs"
        return model_pb2.GetModelResponse(model=described)

    with Client(serve({"GetModel": answer})) as client:
        found = client.model("docs")
    assert (found.role, found.ready, found.max_items_per_request) == (Role.RERANKER, True, 2048)
    assert found.allowed_dimensions == (64, 128)
    assert found.output_types == (OutputType.FLOAT32, OutputType.INT8)
    assert found.contract["pooling"] == "last_token"


def test_token_ids_come_in_order_over_several_requests(serve):
    seen = []

    def answer(request, _context):
        seen.append((request.query, request.input_type, len(request.texts)))
        return model_pb2.TokenizeResponse(
            texts=[model_pb2.TokenizedText(ids=text.encode()) for text in request.texts]
        )

    with Client(serve({"Tokenize": answer}), config=ClientConfig(max_batch_items=2)) as client:
        found = client.tokenize("docs", ["a", "bc", "d"], input_type="QUERY")
        client.tokenize("relevance", ["a"], query="q")
        with pytest.raises(errors.InvalidRequest, match=r"texts\[0\] is token ids"):
            client.tokenize("docs", [[1, 2]])
    assert [text.ids.tolist() for text in found.texts] == [[97], [98, 99], [100]]
    assert found.texts[0].ids.dtype == np.int64
    assert sorted(seen) == [("", 1, 1), ("", 1, 2), ("q", 0, 1)]


@pytest.mark.parametrize(
    ("states", "names"),
    [
        ([{}, {"a": False}, {"a": True}], []),
        ([{"a": False, "b": False}, {"a": True, "b": False}], ["a"]),
        ([{"a": False, "b": False}, {"a": True, "b": False}], ["a-alias"]),
    ],
)
def test_waiting_ends_when_what_is_named_is_ready(serve, states, names):
    with Client(serve(listing(*states))) as client:
        found = client.wait_ready(*names, timeout=20)
    assert {model.name: model.ready for model in found} == states[-1]


def test_waiting_ends_when_the_fleet_comes_up(serve):
    calls = Counter()

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] <= 6:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return listing({"a": True})["ListModels"](request, context)

    async def wait(endpoint):
        # One attempt for each listing, so that waiting itself has to go on.
        async with AsyncClient(endpoint, config=ClientConfig(max_attempts=1)) as client:
            return await client.wait_ready(timeout=20)

    assert [model.name for model in asyncio.run(wait(serve({"ListModels": answer})))] == ["a"]


def test_waiting_in_vain_says_for_what(serve):
    with Client(serve(listing({"a": True, "b": False}))) as client:
        with pytest.raises(errors.DeadlineExceeded, match=r"waiting for b: 0 of 1 replicas"):
            client.wait_ready(timeout=2)
        with pytest.raises(errors.ModelNotFound, match=r"model is 'c'; this fleet has: a, b"):
            client.wait_ready("c", timeout=20)


@pytest.mark.parametrize(("answers", "missing"), [(1, "b: 0 of 1 replicas"), (0, "an answer")])
def test_waiting_for_an_answer_that_does_not_come_says_for_what(serve, answers, missing):
    gone, calls = threading.Event(), Counter()
    answered = listing({"a": True, "b": False})["ListModels"]

    def answer(request, context):
        calls["all"] += 1
        if calls["all"] > answers:
            gone.wait(60)
        return answered(request, context)

    try:
        with (
            Client(serve({"ListModels": answer})) as client,
            pytest.raises(errors.DeadlineExceeded, match=f"waiting for {missing}"),
        ):
            client.wait_ready(timeout=2)
    finally:
        gone.set()


def test_a_token_travels_with_every_call(serve):
    seen = []

    def answer(request, context):
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        return model_pb2.ListModelsResponse()

    endpoint = serve({"ListModels": answer})
    with Client(endpoint, token="s3cret") as client:
        client.models()
    with Client(endpoint) as client:
        client.models()
    assert seen == ["Bearer s3cret", None]
    assert "s3cret" not in repr(client)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """One self-signed certificate for localhost, used by both ends."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate; it is not installed")
    return folder


@pytest.mark.parametrize("mutual", [False, True])
def test_an_encrypted_connection(serve, certificates, mutual):
    key, certificate = (certificates / "key.pem"), (certificates / "cert.pem")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=certificate.read_bytes() if mutual else None,
        require_client_auth=mutual,
    )
    endpoint = serve(listing({"a": True}), credentials)
    own = {"certificate": certificate, "private_key": key} if mutual else {}
    tls = Tls(root_certificates=certificate, server_name="localhost", **own)
    with Client(endpoint, tls=tls) as client:
        assert [model.name for model in client.models()] == ["a"]
    once = ClientConfig(max_attempts=1)
    with (
        Client(endpoint, tls=Tls(server_name="localhost"), config=once) as stranger,
        pytest.raises(errors.Unavailable, match="does not answer"),
    ):
        stranger.models()


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ({"certificate": "cert.pem"}, "needs both"),
        ({"root_certificates": "missing.pem"}, r"missing\.pem cannot be read"),
    ],
)
def test_unusable_files_are_named(tmp_path, tls, said):
    files = Tls(**{name: tmp_path / file for name, file in tls.items()})
    with pytest.raises(errors.InvalidRequest, match=said):
        Client("localhost:1", tls=files)


@pytest.mark.parametrize("endpoint", ["http://host:1", "host", ":9000", "host:", "host:http", ""])
def test_an_endpoint_is_host_and_port(endpoint):
    with pytest.raises(errors.InvalidRequest, match="give host:port"):
        Client(endpoint)
