"""A request that names no output type gets its model's default, in a call as in a stream.

Defaults that the model cannot give are refused before a replica takes them over.
"""

from dataclasses import replace

import pytest

from embedfleet.errors import InvalidManifest
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    InputType,
    OutputType,
    RerankOptions,
    Role,
)
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime import EmbedderRuntime, RerankerRuntime, load_model
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


@pytest.mark.parametrize(
    ("given", "field", "parts"),
    [
        # The embedded embedder is 256 wide, which no manifest says.
        ({"default_dimension": 512}, "spec.dimension", ["is 512", "32 to 256", "Lower"]),
        ({"allowed_dimensions": (64, 256, 257)}, "spec.allowedDimensions[2]", ["is 257", "256"]),
        ({"allowed_dimensions": (64,)}, "spec.allowedDimensions", [r"is \[64\]", "dimension, 256"]),
        (
            {"default_dimension": 100, "default_output_type": OutputType.BINARY},
            "spec.quantization.output", ["is BINARY", "is 100", "spec.dimension to 96"],
        ),
    ],
)  # fmt: skip
async def test_a_default_that_the_model_cannot_do_is_not_taken_over(model, given, field, parts):
    runtime = EmbedderRuntime(model, ReplicaSettings())
    runtime.start()
    with pytest.raises(InvalidManifest, match=".*".join(parts)) as refused:
        await runtime.reconfigure(ReplicaSettings(**given))
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field} is ")
    result = await runtime.embed([EmbedItem(text="a")], EmbedOptions(InputType.QUERY))
    assert (result.dimension, result.output_type) == (256, OutputType.FLOAT32)
    await runtime.close()


@pytest.mark.parametrize(
    "given",
    [
        {"default_dimension": 256},
        {"default_dimension": 104, "default_output_type": OutputType.BINARY},
        {"allowed_dimensions": (64, 256)},
        {"default_dimension": 64, "allowed_dimensions": (64,)},
    ],
)
async def test_a_default_that_the_model_can_do_is_taken_over(model, given):
    runtime = EmbedderRuntime(model, ReplicaSettings())
    runtime.start()
    await runtime.reconfigure(ReplicaSettings(**given))
    result = await runtime.embed([EmbedItem(text="a")], EmbedOptions(InputType.QUERY))
    assert result.dimension == given.get("default_dimension", 256)
    await runtime.close()


async def test_the_longest_pair_must_hold_the_prompt():
    """Of lengths one apart, the longer scores the shortest pair and the shorter does not start."""
    arguments = ReplicaArguments(
        name="r", role=Role.RERANKER, source="embedded/reranker", backend="echo"
    )
    loaded = load_model(arguments, 1)
    whole = RerankerRuntime(loaded, ReplicaSettings())
    whole.start()
    alone = await whole.rerank("a", ["a"], RerankOptions())
    await whole.close()
    least = alone.input_tokens
    assert least > 64
    enough = RerankerRuntime(replace(loaded, max_tokens=least), ReplicaSettings())
    enough.start()
    await enough.reconfigure(ReplicaSettings())
    assert (await enough.rerank("a", ["a"], RerankOptions())).num_failed == 0
    await enough.close()
    short = RerankerRuntime(replace(loaded, max_tokens=least - 1), ReplicaSettings())
    message = f"spec.maxPairTokens is {least - 1}: .* take {least} with .* Raise it"
    with pytest.raises(InvalidManifest, match=message):
        await short.reconfigure(ReplicaSettings())
