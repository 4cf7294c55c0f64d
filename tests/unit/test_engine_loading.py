"""What an engine refuses to load or to run, and what it makes of `auto`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from embedfleet.batching.packing import pack
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.engine.echo import EchoEngine
from embedfleet.engine.torch.device import CpuFeatures, choose_dtype, resolve
from embedfleet.engine.torch.engine import load_engine
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.engine.torch.report import advice, describe_device
from embedfleet.errors import (
    CheckpointError,
    EngineError,
    InvalidRequest,
    NonFiniteResult,
    WrongRole,
)
from embedfleet.messages import Role

CONFIG = ModelConfig(
    num_layers=2,
    hidden_size=16,
    num_query_heads=2,
    num_kv_heads=1,
    head_dim=8,
    intermediate_size=24,
    vocab_size=50,
    max_tokens=64,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tied_lm_head=True,
)
SHAPES = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (8, 16),
    "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "self_attn.q_norm": (8,),
    "self_attn.k_norm": (8,),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
    "input_layernorm": (16,),
    "post_attention_layernorm": (16,),
}
CPU = EngineOptions(device="cpu", dtype="float32", num_threads=1)
OLD_CPU = CpuFeatures(num_cores=2, amx_bf16=False, avx512_bf16=False, avx512=False, avx2=True)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    layers = {
        f"layers.{i}.{part}.weight": shape for i in range(2) for part, shape in SHAPES.items()
    }
    shapes = {"embed_tokens.weight": (50, 16), **layers, "norm.weight": (16,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_any_order_of_tensors_gives_the_same_model() -> None:
    batch = pack([np.arange(9)])
    named = list(tensors().items())
    forwards = load_engine(Role.EMBEDDER, CONFIG, named, CPU).embed(batch)
    backwards = load_engine(Role.EMBEDDER, CONFIG, named[::-1], CPU).embed(batch)
    np.testing.assert_array_equal(forwards, backwards)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_leaves_the_given_tensors_alone(dtype: str) -> None:
    given, kept = tensors(), tensors()
    load_engine(Role.EMBEDDER, CONFIG, given.items(), dataclasses.replace(CPU, dtype=dtype))
    for name, tensor in given.items():
        torch.testing.assert_close(tensor, kept[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "norm.weight", "layers.1.mlp.up_proj.weight"]
)
def test_a_missing_tensor_is_named(name: str) -> None:
    named = [(key, tensor) for key, tensor in tensors().items() if key != name]
    with pytest.raises(CheckpointError, match="ended without"):
        load_engine(Role.EMBEDDER, CONFIG, named, CPU)


def test_a_tensor_that_is_not_a_layers_is_refused() -> None:
    named = {**tensors(), "layers.0.self_attn.q_proj.bias.weight": torch.zeros(16)}
    with pytest.raises(CheckpointError, match=r"q_proj\.bias"):
        load_engine(Role.EMBEDDER, CONFIG, reversed(named.items()), CPU)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (EngineOptions(device="tpu"), "device"),
        (EngineOptions(device="cpu:1"), "device"),
        (EngineOptions(device="cuda:x"), "device"),
        (EngineOptions(device="cuda:99"), "device"),
        (EngineOptions(device="cpu", dtype="int8"), "dtype"),
        (EngineOptions(device="cpu", dtype="float16"), "dtype"),
        (EngineOptions(device="cpu", num_threads=0), "num_threads"),
        (EngineOptions(device="cpu", max_tokens=65), "max_tokens"),
        (EngineOptions(device="cpu", max_tokens=0), "max_tokens"),
    ],
)
def test_impossible_options_name_their_field(options: EngineOptions, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_engine(Role.EMBEDDER, CONFIG, tensors().items(), options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("device", "changes", "expected"),
    [
        ("cuda", {}, torch.bfloat16),
        ("cpu", {}, torch.float32),
        ("cpu", {"avx512": True}, torch.float32),
        ("cpu", {"avx512_bf16": True}, torch.bfloat16),
        ("cpu", {"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_fast(
    device: str, changes: dict[str, bool], expected: torch.dtype
) -> None:
    assert choose_dtype("auto", device, dataclasses.replace(OLD_CPU, **changes)) == expected


def test_auto_needs_no_help() -> None:
    placement = resolve(EngineOptions(), CONFIG)
    assert placement.num_threads >= 1
    assert placement.dtype in (torch.float32, torch.bfloat16)


def test_an_embedder_does_not_score_nor_a_reranker_embed() -> None:
    batch = pack([np.arange(3)])
    embedder = load_engine(Role.EMBEDDER, CONFIG, tensors().items(), CPU)
    reranker = load_engine(Role.RERANKER, CONFIG, tensors().items(), CPU, score_token_ids=(1, 2))
    with pytest.raises(WrongRole, match="reranker"):
        embedder.score(batch)
    with pytest.raises(WrongRole, match="embedder"):
        reranker.embed(batch)


@pytest.mark.parametrize("ids", [[50], [-1], [3, 99]])
def test_ids_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    engine = load_engine(Role.EMBEDDER, CONFIG, tensors().items(), CPU)
    with pytest.raises(InvalidRequest, match="vocabulary of 50"):
        engine.embed(pack([np.array(ids)]))


def test_the_limit_counts_the_prefix() -> None:
    engine = load_engine(
        Role.EMBEDDER, CONFIG, tensors().items(), dataclasses.replace(CPU, max_tokens=10)
    )
    prefix = np.arange(6)
    assert engine.embed(pack([np.arange(4)], [prefix], [0])).shape == (1, 16)
    with pytest.raises(InvalidRequest, match="has 11 tokens"):
        engine.embed(pack([np.arange(5)], [prefix], [0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_weight_gives_an_error_not_a_vector(value: float) -> None:
    named = tensors()
    named["embed_tokens.weight"][7] = value
    engine = load_engine(Role.EMBEDDER, CONFIG, named.items(), CPU)
    with pytest.raises(NonFiniteResult, match="embedding 1 of 3"):
        engine.embed(pack([np.array([1]), np.array([7]), np.array([2])]))


def test_a_closed_engine_says_so() -> None:
    engine = load_engine(Role.EMBEDDER, CONFIG, tensors().items(), CPU)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.embed(pack([np.arange(3)]))


def test_echo_tells_sequences_and_prefixes_apart() -> None:
    echo = EchoEngine(Role.EMBEDDER, 8, 100)
    one, two = np.array([3, 4]), np.array([5])
    rows = echo.embed(pack([one, two]))
    assert rows.shape == (2, 8)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[::-1], echo.embed(pack([two, one])))
    assert not np.array_equal(rows[0], rows[1])
    shared = echo.embed(pack([one, two], [np.array([9])], [0, -1]))
    assert not np.array_equal(shared[0], rows[0])
    np.testing.assert_array_equal(shared[1], rows[1])
    with pytest.raises(WrongRole):
        echo.score(pack([one]))


def test_advice_follows_from_features() -> None:
    assert advice(OLD_CPU, on_cpu=False) == ()
    (bfloat16,) = advice(OLD_CPU, on_cpu=True)
    assert "float32 is used" in bfloat16
    assert advice(dataclasses.replace(OLD_CPU, amx_bf16=True), on_cpu=True) == ()


def test_the_report_is_of_this_machine() -> None:
    report = describe_device()
    assert report.num_cores >= 1
    assert report.dtype in report.gflops
    assert all(rate > 0 for rate in report.gflops.values())
