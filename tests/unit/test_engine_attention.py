"""Every attention path equals the textbook formula, evaluated in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedfleet.batching.packing import PackedBatch, pack
from embedfleet.engine.torch.attention import attend
from embedfleet.engine.torch.attention_rows import SegmentAttention, VarlenAttention

G, R, D = 2, 3, 16


def textbook(q_nHD: torch.Tensor, k_KGD: torch.Tensor, v_KGD: torch.Tensor) -> torch.Tensor:
    """Attend with the causal mask aligned to the bottom right; queries come scaled."""
    n, num_keys = len(q_nHD), len(k_KGD)
    q, k, v = q_nHD.double(), k_KGD.double(), v_KGD.double()
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("nhd,khd->hnk", q, k)
    visible = torch.arange(num_keys) <= torch.arange(n).unsqueeze(1) + num_keys - n
    scores = scores.masked_fill(~visible, float("-inf"))
    return torch.einsum("hnk,khd->nhd", scores.softmax(-1), v).float()


# Queries, keys: blocks of 64 queries, the dense limit of 1,024 keys, both sides of each.
@pytest.mark.parametrize(
    ("n", "num_keys"),
    [(1, 1), (1, 50), (64, 64), (65, 65), (70, 200), (1024, 1024), (1025, 1025), (40, 1100)],
)
def test_a_span_attends_as_the_textbook(n: int, num_keys: int) -> None:
    generator = torch.Generator().manual_seed(n)
    q_nHD = torch.randn(n, G * R, D, generator=generator)
    k, v = torch.randn(2, num_keys, G, D, generator=generator)
    out = torch.empty(n, G, R, D)
    attend(q_nHD.view(n, G, R, D).transpose(0, 1).contiguous(), k, v, out)
    torch.testing.assert_close(out.flatten(1, 2), textbook(q_nHD, k, v), rtol=1e-4, atol=1e-5)


def varlen_by_the_book(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Do as the CUDA kernel's documentation says."""
    lengths_q, lengths_k = cu_seq_q.diff(), cu_seq_k.diff()
    assert (max_q, max_k) == (lengths_q.max(), lengths_k.max())
    assert enable_gqa
    assert window_size == (-1, 0) or max_q == 1, "one query needs no mask, more do"
    parts = zip(
        torch.split(query * D**-0.5, lengths_q.tolist()),
        torch.split(key, lengths_k.tolist()),
        torch.split(value, lengths_k.tolist()),
        strict=True,
    )
    return torch.cat([textbook(q, k, v) for q, k, v in parts])


BATCHES = {
    "plain": ([3, 1, 7], [], None),
    "one prefix": ([3, 1, 7], [5], [0, 0, 0]),
    "prefixes mixed": ([2, 4, 1], [3, 6], [1, -1, 0]),
    "block of masked queries and more": ([1030], [20], [0]),
}


def batch_of(lengths: list[int], prefixes: list[int], parents: list[int] | None) -> PackedBatch:
    ids = [np.zeros(length, np.int64) for length in (*lengths, *prefixes)]
    return pack(ids[: len(lengths)], ids[len(lengths) :], parents)


@pytest.mark.parametrize("case", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("path", ["segments", "varlen", "varlen, few keys at a time"])
def test_a_batch_attends_as_the_textbook(path: str, case: tuple) -> None:
    batch = batch_of(*case)
    cpu = torch.device("cpu")
    attention = (
        SegmentAttention(batch, cpu)
        if path == "segments"
        else VarlenAttention(batch, cpu, varlen_by_the_book, 10 if "few" in path else 10_000)
    )
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch.num_tokens, G * R, D, generator=generator)
    k, v = torch.randn(2, batch.num_tokens, G, D, generator=generator)
    rows = np.split(np.arange(batch.num_tokens), batch.cu_seqlens[1:-1])
    parents = [-1] * batch.num_prefixes + batch.prefix_of.tolist()
    expected = []
    for own, parent in zip(rows, parents, strict=True):
        keys = np.concatenate((rows[parent], own)) if parent >= 0 else own
        expected.append(textbook(q[own] * D**-0.5, k[keys], v[keys]).flatten(1))
    got = attention.all_tokens(q, k, v)
    torch.testing.assert_close(got, torch.cat(expected), rtol=1e-4, atol=1e-5)
    last = torch.tensor([own[-1] for own in rows[batch.num_prefixes :]])
    torch.testing.assert_close(attention.last_tokens(q[last], k, v), got[last])


def test_keys_are_gathered_for_as_many_sequences_as_may_have_them() -> None:
    """Keys a segment: the prefix 5, then 8, 6, 12 and 6: at most 15 at a time."""
    seen: list[int] = []

    def kernel(query, key, value, cu_q, cu_k, max_q, max_k, *, window_size=(-1, -1)):
        seen.append(len(key))
        return query

    batch = batch_of([3, 1, 7, 1], [5], [0, 0, 0, 0])
    attention = VarlenAttention(batch, torch.device("cpu"), kernel, 15)
    q, k = torch.zeros(batch.num_tokens, G * R, D), torch.zeros(batch.num_tokens, G, D)
    attention.all_tokens(q, k, k)
    assert seen == [5 + 8, 6, 12, 6]
    seen.clear()
    attention.last_tokens(q[-4:], k, k)
    assert seen == [8 + 6, 12, 6]
