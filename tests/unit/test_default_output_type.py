"""A request that names no output type gets its model's default, in a call as in a stream."""

import pytest

from embedfleet.messages import OutputType, Role
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime import EmbedderRuntime, load_model
from embedfleet.serving.codec import decode_embed
from embedfleet.serving.describe import encode_model
from embedfleet.wire import common_pb2, embedding_pb2


@pytest.fixture(scope="module")
def model():
    arguments = ReplicaArguments(
        name="docs", role=Role.EMBEDDER, source="embedded/embedder", backend="echo"
    )
    return load_model(arguments, 1)


@pytest.mark.parametrize(
    "message",
    [embedding_pb2.EmbedRequest, embedding_pb2.EmbedStreamRequest],
    ids=["call", "stream"],
)
@pytest.mark.parametrize(
    ("asked", "default", "given", "bytes_of_a_component"),
    [
        (0, "FLOAT32", "FLOAT32", 4),
        (0, "FLOAT16", "FLOAT16", 2),
        (0, "INT8", "INT8", 1),
        (common_pb2.FLOAT32, "INT8", "FLOAT32", 4),
        (common_pb2.INT8, "FLOAT32", "INT8", 1),
    ],
)
async def test_type(model, message, asked, default, given, bytes_of_a_component):
    settings = ReplicaSettings(default_output_type=OutputType(default))
    runtime = EmbedderRuntime(model, settings)
    runtime.start()
    request = message(input_type=common_pb2.DOCUMENT, output_type=asked)
    request.items.add(text=b"a text")
    result = await runtime.embed(*decode_embed(request))
    assert result.output_type is OutputType(given)
    assert len(result.outcomes[0].data) == bytes_of_a_component * result.dimension
    await runtime.close()
    described = encode_model(runtime.description())
    assert described.default_output_type == common_pb2.OutputType.Value(default)
