"""The Qwen3 Embedding family as data.

Sources: arXiv 2506.05176 and the six model cards' published configurations. Sizes, limits, the
default instruction and pinned revisions live here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedfleet.messages import Role

__all__ = [
    "DEFAULT_INSTRUCTION",
    "MAX_TOKENS",
    "MIN_DIMENSION",
    "PUBLISHED",
    "PublishedModel",
    "published",
]

MIN_DIMENSION: Final = 32
MAX_TOKENS: Final = 32_768
DEFAULT_INSTRUCTION: Final = (
    "Given a web search query, retrieve relevant passages that answer the query"
)


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One published checkpoint.

    Attributes:
        source: Name on the hub.
        size: `0.6B`, `4B` or `8B`.
        native_dimension: Width of the hidden state.
        num_parameters: As published, embeddings included.
        float16_overflows: Texts that start with "import" become NaN in float16
            (QwenLM/Qwen3-Embedding#164).
        revision: Commit pinned by the mteb leaderboard; empty where it pins none.
    """

    source: str
    role: Role
    size: str
    num_layers: int
    native_dimension: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_parameters: int
    float16_overflows: bool
    revision: str = ""


def _pair(
    size: str,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    parameters: int,
    revision: str,
) -> tuple[PublishedModel, PublishedModel]:
    def model(role: Role, family: str, pinned: str) -> PublishedModel:
        return PublishedModel(
            source=f"Qwen/Qwen3-{family}-{size}",
            role=role,
            size=size,
            num_layers=layers,
            native_dimension=hidden,
            num_query_heads=heads,
            num_kv_heads=8,
            head_dim=128,
            intermediate_size=intermediate,
            num_parameters=parameters,
            float16_overflows=size == "8B",
            revision=pinned,
        )

    return (model(Role.EMBEDDER, "Embedding", revision), model(Role.RERANKER, "Reranker", ""))


PUBLISHED: Final[tuple[PublishedModel, ...]] = (
    *_pair("0.6B", 28, 1024, 16, 3072, 595_776_512, "b22da495047858cce924d27d76261e96be6febc0"),
    *_pair("4B", 36, 2560, 32, 9728, 4_021_774_336, "636cd9bf47d976946cdbb2b0c3ca0cb2f8eea5ff"),
    *_pair("8B", 36, 4096, 32, 12288, 7_567_295_488, "4e423935c619ae4df87b646a3ce949610c66241c"),
)


def published(source: str) -> PublishedModel | None:
    """Find a published model by its hub name, regardless of case."""
    return next((m for m in PUBLISHED if m.source.lower() == source.lower()), None)
