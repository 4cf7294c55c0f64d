"""The shape of a Qwen3 model, read from a checkpoint's `config.json`.

Only what the forward pass implements is accepted: a setting that would change the result and is
not understood is refused by name, never skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedfleet.errors import CheckpointError

__all__ = ["CONFIG_FILE", "ModelConfig", "read_config"]

CONFIG_FILE: Final = "config.json"

_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "use_sliding_window": (False,),
    "is_causal": (True,),
    "quantization_config": (None,),
}
"""Optional settings with the values that the forward pass implements; the first is the default."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the forward pass needs to know.

    Attributes:
        max_tokens: `max_position_embeddings`: longest sequence, prompt included.
        tied_lm_head: The output head is the embedding table (`tie_word_embeddings`).
    """

    num_layers: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_tokens: int
    rms_norm_eps: float
    rope_theta: float
    tied_lm_head: bool


def read_config(folder: Path) -> ModelConfig:
    """Read and check a checkpoint's configuration.

    Raises:
        CheckpointError: The file is missing or damaged, or describes another model.
    """
    file = folder / CONFIG_FILE
    try:
        raw = json.loads(file.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}): a checkpoint needs its config.json. Copy "
            "the file that was published with the weights."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON ({error}). Download it again.") from error
    if not isinstance(raw, dict) or raw.get("model_type") != "qwen3":
        found = raw.get("model_type") if isinstance(raw, dict) else type(raw).__name__
        raise _refused(file, "model_type", found, "`qwen3` is the only one implemented")
    for key, allowed in _ONLY.items():
        if raw.get(key, allowed[0]) not in allowed:
            raise _refused(file, key, raw[key], f"only {allowed[0]!r} is implemented")
    if set(raw.get("layer_types") or ()) - {"full_attention"}:
        raise _refused(
            file, "layer_types", raw["layer_types"], "only full_attention is implemented"
        )
    config = _shape(raw, file)
    if config.num_query_heads % config.num_kv_heads:
        raise _refused(
            file,
            "num_key_value_heads",
            config.num_kv_heads,
            f"it must divide num_attention_heads, {config.num_query_heads}",
        )
    if config.head_dim % 2:
        raise _refused(file, "head_dim", config.head_dim, "rotary positions need an even one")
    return config


def _shape(raw: Mapping[str, Any], file: Path) -> ModelConfig:
    def count(key: str, default: int | None = None) -> int:
        value = raw.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _refused(file, key, value, "a whole number of at least 1 is needed")
        return value

    return ModelConfig(
        num_layers=count("num_hidden_layers"),
        hidden_size=count("hidden_size"),
        num_query_heads=count("num_attention_heads"),
        num_kv_heads=count("num_key_value_heads"),
        head_dim=count("head_dim", 128),  # what the reference assumes
        intermediate_size=count("intermediate_size"),
        vocab_size=count("vocab_size"),
        max_tokens=count("max_position_embeddings"),
        rms_norm_eps=_positive(raw.get("rms_norm_eps", 1e-6), file, "rms_norm_eps"),
        rope_theta=_rope_theta(raw, file),
        tied_lm_head=bool(raw.get("tie_word_embeddings", False)),
    )


def _rope_theta(raw: Mapping[str, Any], file: Path) -> float:
    """Return the rotary base; newer files hold it in `rope_parameters`, older ones on top."""
    found = []
    for key in ("rope_parameters", "rope_scaling"):
        value = raw.get(key) or {}
        kind = value.get("rope_type", value.get("type", "default")) if value else "default"
        known = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
        if kind != "default" or set(value) - known or value.get("partial_rotary_factor", 1) != 1:
            raise _refused(file, key, value, "only plain rotary positions are implemented")
        found.append(value.get("rope_theta"))
    given = {value for value in (*found, raw.get("rope_theta")) if value is not None}
    if len(given) != 1:
        raise _refused(file, "rope_theta", sorted(map(str, given)), "exactly one value is needed")
    return _positive(given.pop(), file, "rope_theta")


def _positive(value: object, file: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _refused(file, key, value, "a positive number is needed")
    return float(value)


def _refused(file: Path, key: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: {key} is {value!r}; {expected}. Use a checkpoint of the Qwen3 Embedding family."
    )
