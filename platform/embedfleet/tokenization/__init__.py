"""Text to the token ids that a model was trained on, within its limits, and errors per item."""

from embedfleet.tokenization.embedding import EmbeddingTokenizer
from embedfleet.tokenization.reranking import RerankingTokenizer, RerankTokens
from embedfleet.tokenization.tokenized import Tokenized
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = [
    "EmbeddingTokenizer",
    "RerankTokens",
    "RerankingTokenizer",
    "Tokenized",
    "Tokenizer",
]
