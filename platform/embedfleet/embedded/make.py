"""Makes the embedded models: `python -m embedfleet.embedded.make [FOLDER]`.

Real architecture, small shapes, random weights: vectors and scores of different texts differ, but
carry no meaning. The same interpreter gives the same bytes; the vocabulary is trained on the
standard library's documentation, so another minor version of Python gives another one.
"""

from __future__ import annotations

import inspect
import json
import pydoc
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint.config import CONFIG_FILE, ModelConfig
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.vocabulary import ADDED_TOKENS, small
from embedfleet.messages import Role
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, query_head, rerank_head
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE

__all__ = ["config", "make", "weights"]

NUM_ORDINARY_TOKENS: Final = 4_096

SHAPE: Final = ModelConfig(
    num_layers=2,
    hidden_size=128,
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=384,
    vocab_size=NUM_ORDINARY_TOKENS + len(ADDED_TOKENS),
    max_tokens=32_768,
    rms_norm_eps=1e-6,
    rope_theta=1_000_000.0,
    tied_lm_head=True,
)

_SEEDS: Final = {Role.EMBEDDER: 1, Role.RERANKER: 2}

_MODULES: Final = (
    *("argparse", "asyncio", "bisect", "calendar", "codecs", "collections", "configparser"),
    *("contextlib", "csv", "datetime", "decimal", "difflib", "email", "enum", "fractions"),
    *("functools", "glob", "heapq", "http.client", "inspect", "io", "ipaddress", "itertools"),
    *("json", "logging", "mailbox", "math", "os", "pathlib", "pickle", "queue", "random", "re"),
    *("shutil", "socket", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile"),
    *("textwrap", "threading", "traceback", "types", "typing", "unittest", "urllib.request"),
    *("uuid", "weakref", "zipfile", "zoneinfo"),
)


def make(folder: Path, role: Role) -> None:
    """Write one embedded model into a folder.

    Args:
        folder: Created if absent.
        role: An embedder's tokenizer appends the final token, a reranker's does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).write_bytes(small(_texts(), NUM_ORDINARY_TOKENS, role))
    (folder / CONFIG_FILE).write_text(json.dumps(config(), indent=2) + "\n")
    (folder / SINGLE_FILE).write_bytes(save(weights(role), metadata={"format": "pt"}))


def _texts() -> Iterator[str]:
    """Yield English and code that every Python brings, and the prompts."""
    prompts = RERANK_PREFIX + query_head(DEFAULT_INSTRUCTION) + RERANK_SUFFIX
    yield from (prompts + rerank_head(DEFAULT_INSTRUCTION, " yes no yes no"),) * 20
    for name in _MODULES:
        module = import_module(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            members = sorted(vars(module).items())
        yield from (inspect.getdoc(value) or "" for _, value in members if callable(value))
        yield pydoc.getdoc(module)


def config() -> Mapping[str, object]:
    """Return the configuration, as the reference library spells it."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": SHAPE.num_layers,
        "hidden_size": SHAPE.hidden_size,
        "num_attention_heads": SHAPE.num_query_heads,
        "num_key_value_heads": SHAPE.num_kv_heads,
        "head_dim": SHAPE.head_dim,
        "intermediate_size": SHAPE.intermediate_size,
        "vocab_size": SHAPE.vocab_size,
        "max_position_embeddings": SHAPE.max_tokens,
        "rms_norm_eps": SHAPE.rms_norm_eps,
        "rope_theta": SHAPE.rope_theta,
        "tie_word_embeddings": SHAPE.tied_lm_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "bfloat16",
    }


def weights(role: Role) -> dict[str, torch.Tensor]:
    """Draw weights that keep the size of what passes through them, so that texts stay apart."""
    generator = torch.Generator().manual_seed(_SEEDS[role])
    drawn = {}
    for name, shape in expected_tensors(SHAPE, role).items():
        if len(shape) == 1:
            drawn[f"model.{name}"] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        matrix = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        drawn[f"model.{name}"] = matrix.to(torch.bfloat16)
    return drawn


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for each in Role:
        make(target / each, each)
