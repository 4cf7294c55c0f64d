"""The least that a Python gRPC server can do with the same messages: decode, echo, encode.

Run as a process of its own; prints its port.
"""

from __future__ import annotations

import asyncio

import grpc
import numpy as np

from embedfleet.wire import common_pb2, embedding_pb2

DIMENSION = 1024
VECTOR = np.random.default_rng(0).standard_normal(DIMENSION).astype(np.float32).tobytes()


async def answer(
    request: embedding_pb2.EmbedRequest, context: grpc.aio.ServicerContext
) -> embedding_pb2.EmbedResponse:
    return embedding_pb2.EmbedResponse(
        embeddings=[embedding_pb2.Embedding(values=VECTOR, num_tokens=30) for _ in request.items],
        dimension=DIMENSION,
        output_type=common_pb2.FLOAT32,
        usage=common_pb2.Usage(input_tokens=30, num_items=1),
        timings=common_pb2.Timings(
            tokenize_nanoseconds=100_000,
            queue_nanoseconds=100_000,
            compute_nanoseconds=100_000,
            total_nanoseconds=300_000,
        ),
        provenance=common_pb2.Provenance(model=request.model, contract_hash=b"0" * 64),
    )


async def main() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=embedding_pb2.EmbedRequest.FromString,
        response_serializer=embedding_pb2.EmbedResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler(
        "embedfleet.v1.EmbeddingService", {"Embed": handler}
    )
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
