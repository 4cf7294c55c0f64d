"""Calls a fleet: blocking or asyncio, numpy arrays out, errors of the platform's one tree.

Batches input of any length, keeps its order, bounds what is under way, and retries where the fleet
says that a retry can help.
"""

from embedfleet.client.asynchronous import AsyncClient
from embedfleet.client.blocking import Client
from embedfleet.client.options import (
    ClientConfig,
    EmbedKeywords,
    RerankKeywords,
    Tls,
    TokenizeKeywords,
)
from embedfleet.client.results import (
    Embeddings,
    ModelInfo,
    RankedDocument,
    Ranking,
    Tokenization,
    TokenizedText,
    Usage,
)

__all__ = [
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
