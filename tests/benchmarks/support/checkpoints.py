"""Checkpoints of the real 0.6B shape with random weights, made once and kept.

Speed does not depend on what the weights are. They are stored in bfloat16 as published ones are,
with the published tokenizer, once for both roles: the files differ in the tokenizer's last step.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from support.qwen_tokenizer import published
from support.report import note

from embedfleet.catalog import MAX_TOKENS, PUBLISHED
from embedfleet.checkpoint.config import ModelConfig, read_config
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.embedded.vocabulary import FINAL_TOKEN
from embedfleet.messages import Role

CACHE = Path("~/.cache/embedfleet-bench").expanduser()
VOCABULARY = 151_669
SPREAD = 0.02
"""Standard deviation that the reference initialises with."""


def checkpoint(role: Role, num_layers: int = 28) -> Path:
    """Return a checkpoint's folder, made now if it is not there."""
    folder = CACHE / f"0.6b-shape-{num_layers}-layers" / role.value
    if not folder.exists():
        note(f"making a random checkpoint of {num_layers} layers in {folder.parent}")
        _make(folder.parent, num_layers)
    return folder


def _make(parent: Path, num_layers: int) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=CACHE))
    for role in Role:
        folder = fresh / role.value
        folder.mkdir()
        for name, content in _documents(num_layers).items():
            (folder / name).write_text(json.dumps(content, indent=2))
        (folder / "tokenizer.json").write_bytes(published(role))
    weights = fresh / Role.EMBEDDER.value / "model.safetensors"
    save_file(_random(read_config(weights.parent)), weights, {"format": "pt"})
    os.link(weights, fresh / Role.RERANKER.value / weights.name)
    try:
        fresh.rename(parent)
    except OSError:
        # Another run was faster.
        shutil.rmtree(fresh)


def _documents(num_layers: int) -> Mapping[str, Mapping[str, Any]]:
    shape = next(model for model in PUBLISHED if model.size == "0.6B")
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "num_hidden_layers": num_layers,
        "hidden_size": shape.native_dimension,
        "num_attention_heads": shape.num_query_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": MAX_TOKENS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": FINAL_TOKEN,
        "eos_token": "<|im_end|>",
        "padding_side": "left",
        "model_max_length": MAX_TOKENS,
        "clean_up_tokenization_spaces": False,
    }
    return {"config.json": config, "tokenizer_config.json": tokenizer}


def _random(config: ModelConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in expected_tensors(config, Role.EMBEDDER).items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            values = torch.randn(shape, generator=generator)
            tensors[name] = values.mul_(SPREAD).to(torch.bfloat16)
    return tensors
