"""The engine gives what transformers gives, alone or in a batch, prefix shared or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from embedfleet.batching.packing import pack
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.torch.engine import TorchEngine, load_engine
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.messages import Role

YES, NO = 9, 2


def shape(**changes) -> ModelConfig:
    base = {
        "num_layers": 3,
        "hidden_size": 96,
        "num_query_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 32,
        "intermediate_size": 160,
        "vocab_size": 1000,
        "max_tokens": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tied_lm_head": True,
    }
    return ModelConfig(**{**base, **changes})


ODD_SHAPES = {
    "gqa-1": shape(num_kv_heads=4),
    "gqa-2": shape(),
    "gqa-8": shape(num_query_heads=8, num_kv_heads=1),
    "head-dim-not-hidden-over-heads": shape(hidden_size=80, head_dim=64),
    "untied": shape(tied_lm_head=False),
    "one-layer": shape(num_layers=1),
    "full-vocabulary": shape(vocab_size=151_669, hidden_size=64),
    "other-theta-and-eps": shape(rope_theta=1e4, rms_norm_eps=1e-5),
}


@cache
def reference(config: ModelConfig) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_query_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_tokens,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tied_lm_head,
        )
    ).eval()
    for name, parameter in model.named_parameters():
        # Norm weights away from 1, or a forgotten one would not show.
        mean, deviation = (1.0, 0.2) if "norm" in name else (0.0, 0.08)
        torch.nn.init.normal_(parameter, mean, deviation)
    return model


@cache
def engine(config: ModelConfig, role: Role = Role.EMBEDDER, dtype: str = "float32") -> TorchEngine:
    state = reference(config).state_dict()
    tensors = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return load_engine(
        role,
        config,
        tensors.items(),
        EngineOptions(device="cpu", dtype=dtype, num_threads=2),
        score_token_ids=(YES, NO) if role is Role.RERANKER else None,
    )


@torch.inference_mode()
def reference_states(config: ModelConfig, sequences: list[np.ndarray]) -> np.ndarray:
    model = reference(config).model
    rows = [model(torch.from_numpy(ids)[None]).last_hidden_state[0, -1] for ids in sequences]
    return torch.stack(rows).numpy()


def random_sequences(config: ModelConfig, lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, config.vocab_size, length) for length in lengths]


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert (unit(ours) * unit(theirs)).sum(axis=1).min() >= 1 - 1e-6
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("config", ODD_SHAPES.values(), ids=ODD_SHAPES)
def test_float32_is_the_reference_at_any_shape(config: ModelConfig) -> None:
    sequences = random_sequences(config, [1, 7, 64, 2, 65, 130, 1])
    assert_close(engine(config).embed(pack(sequences)), reference_states(config, sequences))


# One token; block of queries, tile and dense limit, each with both neighbours; the fused kernel.
LENGTHS = [1, 2, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 2000, 4096]


def test_float32_is_the_reference_at_any_length() -> None:
    config = shape()
    sequences = random_sequences(config, LENGTHS)
    expected = reference_states(config, sequences)
    assert_close(engine(config).embed(pack(sequences)), expected)
    backwards = engine(config).embed(pack(sequences[::-1]))[::-1]
    assert_close(backwards, expected)


@pytest.mark.parametrize("name", ["gqa-1", "gqa-2", "gqa-8", "head-dim-not-hidden-over-heads"])
def test_bfloat16_stays_near_the_float32_reference(name: str) -> None:
    config = ODD_SHAPES[name]
    sequences = random_sequences(config, [1, 3, 64, 130, 700])
    ours = engine(config, dtype="bfloat16").embed(pack(sequences))
    theirs = reference_states(config, sequences)
    assert np.linalg.norm(unit(ours) - unit(theirs), axis=1).max() <= 2e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_alone_equals_in_a_batch(dtype: str) -> None:
    config = shape()
    sequences = random_sequences(config, [5, 300, 1, 900, 64, 17])
    together = engine(config, dtype=dtype).embed(pack(sequences))
    alone = np.concatenate([engine(config, dtype=dtype).embed(pack([ids])) for ids in sequences])
    tolerance = 1e-5 if dtype == "float32" else 1.5e-2
    assert np.linalg.norm(unit(together) - unit(alone), axis=1).max() <= tolerance


# Rows: prefix lengths, sequence lengths, parents. Why each is here stands in its id.
PREFIX_CASES = {
    "one-for-all": ([70], [128, 1, 64, 200], [0, 0, 0, 0]),
    "several-and-none": ([3, 90], [5, 40, 7, 600], [1, -1, 0, 1]),
    "longer-than-a-tile": ([700], [3, 600, 64], [0, 0, 0]),
    "together-beyond-the-dense-limit": ([900], [200, 1, 130], [0, 0, 0]),
    "chunked-sequence-after-chunked-prefix": ([1300], [1400, 2], [0, 0]),
    "unused": ([8, 9], [4], [1]),
}


@pytest.mark.parametrize(
    ("prefix_lengths", "lengths", "parents"), PREFIX_CASES.values(), ids=PREFIX_CASES
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_prefix_changes_nothing(
    dtype: str, prefix_lengths: list[int], lengths: list[int], parents: list[int]
) -> None:
    config = shape()
    prefixes = random_sequences(config, prefix_lengths, seed=1)
    sequences = random_sequences(config, lengths, seed=2)
    whole = [
        np.concatenate((prefixes[parent], ids)) if parent >= 0 else ids
        for parent, ids in zip(parents, sequences, strict=True)
    ]
    model = engine(config, dtype=dtype)
    shared, plain = model.embed(pack(sequences, prefixes, parents)), model.embed(pack(whole))
    tolerance = 1e-5 if dtype == "float32" else 1.5e-2
    assert np.linalg.norm(unit(shared) - unit(plain), axis=1).max() <= tolerance


def test_a_nested_batch_changes_nothing() -> None:
    config = shape()
    outer, inner = pack(random_sequences(config, [40, 300])), pack(random_sequences(config, [90]))
    model = engine(config)
    expected_outer, expected_inner = model.embed(outer), model.embed(inner)
    nested: list[np.ndarray] = []
    result = model.embed(outer, lambda: nested.append(model.embed(inner)))
    np.testing.assert_array_equal(result, expected_outer)
    assert len(nested) == config.num_layers - 1, "between layers, not after the last"
    for rows in nested:
        np.testing.assert_array_equal(rows, expected_inner)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_threads_at_a_time_change_nothing(dtype: str) -> None:
    config = shape(max_tokens=40_959)  # an engine that no other test has used
    batches = [
        [pack(random_sequences(config, [n, n])) for n in range(at, 400, 90)] for at in (9, 39)
    ]
    model = engine(config, dtype=dtype)
    assert model.info.parallel
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda own: [model.embed(batch) for batch in own], batches))
    for own, results in zip(batches, both, strict=True):
        for batch, rows in zip(own, results, strict=True):
            np.testing.assert_array_equal(rows, model.embed(batch))


def test_a_yield_point_can_abandon_a_batch() -> None:
    class Abandoned(Exception):
        pass

    def abandon() -> None:
        raise Abandoned

    config = shape()
    batch = pack(random_sequences(config, [40]))
    expected = engine(config).embed(batch)
    with pytest.raises(Abandoned):
        engine(config).embed(batch, abandon)
    np.testing.assert_array_equal(engine(config).embed(batch), expected)


@pytest.mark.parametrize("name", ["gqa-2", "untied", "one-layer", "full-vocabulary"])
def test_scores_are_the_official_recipes(name: str) -> None:
    config = ODD_SHAPES[name]
    sequences = random_sequences(config, [90, 128, 30])
    logits = engine(config, Role.RERANKER).score(pack(sequences))
    with torch.inference_mode():
        for ids, logit in zip(sequences, logits, strict=True):
            full = reference(config)(torch.from_numpy(ids)[None]).logits[0, -1]
            expected = torch.log_softmax(full[[NO, YES]], 0)[1].exp()
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", [*ODD_SHAPES])
def test_cuda_stays_near_the_reference(name: str) -> None:
    config = ODD_SHAPES[name]
    state = {k.removeprefix("model."): v for k, v in reference(config).state_dict().items()}
    model = load_engine(Role.EMBEDDER, config, state.items(), EngineOptions(device="cuda"))
    prefixes = random_sequences(config, [70, 700], seed=1)
    sequences = random_sequences(config, [1, 64, 130, 700, 4096], seed=2)
    parents = [0, -1, 1, 0, -1]
    whole = [
        np.concatenate((prefixes[parent], ids)) if parent >= 0 else ids
        for parent, ids in zip(parents, sequences, strict=True)
    ]
    theirs = unit(reference_states(config, whole))
    assert np.linalg.norm(unit(model.embed(pack(whole))) - theirs, axis=1).max() <= 2e-2
    shared = unit(model.embed(pack(sequences, prefixes, parents)))
    assert np.linalg.norm(shared - theirs, axis=1).max() <= 2e-2
