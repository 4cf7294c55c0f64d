"""Requests into results on one replica: tokenize, batch, run, finish.

Knows no Ray and no protobuf: what a replica does can be used and tested as plain asyncio.
"""

from embedfleet.runtime.base import ModelRuntime, TokenizeRequest
from embedfleet.runtime.description import ModelDescription
from embedfleet.runtime.embedder import EmbedderRuntime
from embedfleet.runtime.loading import LoadedModel, load_model
from embedfleet.runtime.reranker import RerankerRuntime

__all__ = [
    "EmbedderRuntime",
    "LoadedModel",
    "ModelDescription",
    "ModelRuntime",
    "RerankerRuntime",
    "TokenizeRequest",
    "load_model",
]
