"""A real gRPC server whose methods are functions of the request: the fake fleet of these tests.

And both clients behind one set of methods.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from embedfleet.client import AsyncClient, Client
from embedfleet.v1 import embedding_pb2, model_pb2, reranking_pb2

Answer = Callable[[Any, grpc.ServicerContext], Any]

SERVICES = {
    "Embed": ("EmbeddingService", embedding_pb2),
    "Rerank": ("RerankingService", reranking_pb2),
    "ListModels": ("ModelService", model_pb2),
    "GetModel": ("ModelService", model_pb2),
    "Tokenize": ("ModelService", model_pb2),
}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Give a function that starts a server and returns its endpoint.

    It takes the methods by name, each a function of request and context in the published messages,
    and server credentials where the connection is to be encrypted.
    """
    servers = []

    def start(
        methods: Mapping[str, Answer], credentials: grpc.ServerCredentials | None = None
    ) -> str:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for name, answer in methods.items():
            service, messages = SERVICES[name]
            handler = grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=getattr(messages, f"{name}Request").FromString,
                response_serializer=getattr(messages, f"{name}Response").SerializeToString,
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"embedfleet.v1.{service}", {name: handler}),)
            )
        address = "127.0.0.1:0"
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=None).wait()


class Waited:
    """The asyncio client behind the blocking one's methods, so that one table covers both."""

    def __init__(self, endpoint, **settings):
        self._runner = asyncio.Runner()
        self._client = AsyncClient(endpoint, **settings)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name):
        method = getattr(self._client, name)

        @functools.wraps(method)
        def call(*args, **keywords):
            result = method(*args, **keywords)
            if hasattr(result, "__aiter__"):
                return self._drain(result)
            return self._runner.run(result)

        return call

    def _drain(self, results):
        try:
            while True:
                try:
                    yield self._runner.run(anext(results))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(results.aclose())


@pytest.fixture(params=[Client, Waited], ids=["blocking", "asyncio"])
def connect(request):
    return request.param
