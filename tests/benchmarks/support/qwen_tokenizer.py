"""The published Qwen3 tokenizer as a file, without a download.

Its vocabulary comes from the fast encoder's package, which lists tokens by rank: a token's merge is
what remains of it when all lower ranks are merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import quicktok

from embedfleet.embedded.vocabulary import Merges, document
from embedfleet.messages import Role
from embedfleet.tokenization.fast import byte_alphabet


@lru_cache(maxsize=2)
def published(role: Role) -> bytes:
    """Return the published Qwen3 tokenizer as an embedder's or a reranker's file."""
    vocab, merges = _published_vocabulary()
    return document(vocab, merges, role)


@lru_cache(maxsize=1)
def _published_vocabulary() -> tuple[dict[str, int], Merges]:
    encoding = quicktok.get_encoding("qwen3")
    num_tokens = min(map(encoding.encode_single_token, encoding.special_tokens_set))
    tokens = [encoding.decode_single_token_bytes(rank) for rank in range(num_tokens)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    alphabet = byte_alphabet()

    def spell(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = []
    for rank, token in enumerate(tokens):
        if len(token) > 1:
            left, right = _merged_below(token, rank, ranks)
            merges.append((spell(left), spell(right)))
    return {spell(token): rank for rank, token in enumerate(tokens)}, merges


def _merged_below(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merge a token's bytes by every rank below its own."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = ((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
        best, i = min(pairs)
        if best >= rank:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts
