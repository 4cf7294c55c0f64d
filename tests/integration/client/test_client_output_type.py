"""Which element type vectors have: the one asked for, else the model's default as the fleet says.

The numbers are the wire contract's: FLOAT32 is 1, FLOAT16 2, INT8 3; 0 asks for the default.
"""

import click
import numpy as np
import pytest

from embedfleet import errors
from embedfleet.cli.sinks import open_sink
from embedfleet.client import Client, ClientConfig
from embedfleet.messages import OutputType
from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2

ONE_BY_ONE = ClientConfig(max_batch_items=1, max_in_flight=1)


def fleet_of(*types, asked=None):
    """Answer each request in the next of these types, the last one for ever."""
    left = list(types)

    def answer(request, _context):
        if asked is not None:
            asked.append(request.output_type)
        number = left.pop(0) if len(left) > 1 else left[0]
        # 1.0 in each type: IEEE 754 single and half precision; 127 of a scale of one.
        vector = {
            1: embedding_pb2.Embedding(values=[1.0]),
            2: embedding_pb2.Embedding(packed=b"\x00\x3c"),
            3: embedding_pb2.Embedding(packed=b"\x7f", scale=1.0),
        }.get(number, embedding_pb2.Embedding())
        return embedding_pb2.EmbedResponse(
            embeddings=[vector for _ in request.items], dimension=1, output_type=number
        )

    return {"Embed": answer}


@pytest.mark.parametrize(
    ("number", "kind", "dtype"),
    [(1, "FLOAT32", np.float32), (2, "FLOAT16", np.float16), (3, "INT8", np.int8)],
)
def test_no_type_asks_for_the_models_default_and_reads_what_came(serve, number, kind, dtype):
    asked = []
    with Client(serve(fleet_of(number, asked=asked))) as client:
        found = client.embed_documents("docs", ["a", "b"])
    assert asked == [common_pb2.OUTPUT_TYPE_UNSPECIFIED]
    assert (found.output_type, found.vectors.dtype) == (OutputType(kind), dtype)
    np.testing.assert_array_equal(found.dequantized(), [[1.0], [1.0]])


@pytest.mark.parametrize(
    ("number", "asked", "reason"),
    [
        (2, "FLOAT32", "another type than was asked for"),
        (0, None, "no type at all: its bytes mean nothing"),
        (99, None, "a type of a newer release"),
    ],
)
def test_an_unreadable_type_is_refused(serve, number, asked, reason):
    with (
        Client(serve(fleet_of(number))) as client,
        pytest.raises(errors.EmbedfleetError, match=f"output type {number}"),
    ):
        client.embed_documents("docs", ["a"], output_type=asked)


def test_a_default_that_changes_between_two_requests_is_refused(serve):
    """numpy would widen one of them, or read levels as components."""
    with (
        Client(serve(fleet_of(1, 3)), config=ONE_BY_ONE) as client,
        pytest.raises(errors.ContractMismatch, match=r"was FLOAT32 .* and INT8"),
    ):
        client.embed_documents("docs", ["a", "b"])
    with (
        Client(serve(fleet_of(1, 3)), config=ONE_BY_ONE) as client,
        pytest.raises(errors.ContractMismatch, match="name an output_type"),
    ):
        list(client.embed_batches("docs", ["a", "b"], input_type="DOCUMENT"))


def test_the_default_is_told(serve):
    embedder = model_pb2.Model(
        name="docs", role=model_pb2.EMBEDDER, default_output_type=common_pb2.INT8
    )
    reranker = model_pb2.Model(name="relevance", role=model_pb2.RERANKER)
    answer = model_pb2.ListModelsResponse(models=[embedder, reranker])
    with Client(serve({"ListModels": lambda request, context: answer})) as client:
        found = [model.default_output_type for model in client.models()]
    assert found == [OutputType.INT8, None]


def test_an_array_refuses_levels_that_nobody_named(serve, tmp_path):
    """Their scales have no place in it; a file without them would look like vectors."""
    target = tmp_path / "vectors.npy"
    with Client(serve(fleet_of(3))) as client:
        part = client.embed_documents("docs", ["a"])
    with (
        pytest.raises(click.UsageError, match="scales of INT8"),
        open_sink("", target, None) as sink,
    ):
        sink.add(0, ["a"], part)
    assert not target.exists()
