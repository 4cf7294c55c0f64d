"""The names that callers may import: a change here is a change for them."""

import inspect

import pytest

import embedfleet.client
from embedfleet.client import AsyncClient, Client

METHODS = [
    "close",
    "embed",
    "embed_batches",
    "embed_documents",
    "embed_queries",
    "embed_stream",
    "golden",
    "model",
    "models",
    "rerank",
    "tokenize",
    "wait_ready",
]


def test_public_names():
    assert sorted(embedfleet.client.__all__) == [
        "AsyncClient",
        "Client",
        "ClientConfig",
        "EmbedKeywords",
        "Embeddings",
        "ModelInfo",
        "RankedDocument",
        "Ranking",
        "RerankKeywords",
        "Tls",
        "Tokenization",
        "TokenizeKeywords",
        "TokenizedText",
        "Usage",
    ]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_public_methods(kind):
    assert sorted(name for name in vars(kind) if not name.startswith("_")) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_take_the_same_arguments(name):
    blocking, awaited = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking).parameters == inspect.signature(awaited).parameters
