"""A wire twin reads and writes exactly the bytes of the published message."""

import random

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.unknown_fields import UnknownFieldSet

from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2, reranking_pb2
from embedfleet.wire import common_pb2 as wire_common
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model
from embedfleet.wire import reranking_pb2 as wire_reranking

PAIRS = [
    (getattr(published, name), getattr(twin, name))
    for published, twin in (
        (common_pb2, wire_common),
        (embedding_pb2, wire_embedding),
        (model_pb2, wire_model),
        (reranking_pb2, wire_reranking),
    )
    for name in published.DESCRIPTOR.message_types_by_name
]

SCALARS = {
    Field.TYPE_STRING: lambda r: "".join(r.choice("aé語😀\n\0") for _ in range(r.randrange(20))),
    Field.TYPE_BYTES: lambda r: r.randbytes(r.randrange(20)),
    # Values that float32 holds exactly.
    Field.TYPE_FLOAT: lambda r: r.randrange(-(2**20), 2**20) / 256,
    Field.TYPE_UINT32: lambda r: r.randrange(2 ** r.randrange(1, 33)),
    Field.TYPE_UINT64: lambda r: r.randrange(2 ** r.randrange(1, 65)),
    Field.TYPE_BOOL: lambda r: r.random() < 0.5,
    Field.TYPE_ENUM: lambda r: r.randrange(10),
}


def fill(message, r):
    """Set each field with an even chance, nested messages too."""
    for field in message.DESCRIPTOR.fields:
        if r.random() < 0.5:
            continue
        if field.type == Field.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            for each in [inner.add() for _ in range(3)] if field.is_repeated else [inner]:
                each.SetInParent()
                fill(each, r)
        elif field.is_repeated:
            getattr(message, field.name).extend(SCALARS[field.type](r) for _ in range(5))
        else:
            setattr(message, field.name, SCALARS[field.type](r))
    return message


@pytest.mark.parametrize(("published", "twin"), PAIRS, ids=[p.__name__ for p, _ in PAIRS])
def test_bytes_are_the_same_both_ways(published, twin):
    r = random.Random(published.DESCRIPTOR.full_name)
    for _ in range(100):
        data = fill(published(), r).SerializeToString(deterministic=True)
        read = twin.FromString(data)
        assert not len(UnknownFieldSet(read))
        assert read.SerializeToString(deterministic=True) == data
        assert published.FromString(read.SerializeToString()).SerializeToString() == data


def test_a_twin_keeps_text_that_is_not_utf8():
    sent = wire_embedding.EmbedRequest(
        model=b"docs", items=[wire_embedding.EmbedItem(text=b"\xff\xfe")]
    )
    assert wire_embedding.EmbedRequest.FromString(sent.SerializeToString()).items[0].text == (
        b"\xff\xfe"
    )
