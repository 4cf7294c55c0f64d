"""The trained model is transformers' own: no mask, no padding and one last token change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import small_model
from transformers import Qwen3ForCausalLM

from embedfleet.errors import CheckpointError, InvalidRequest
from embedfleet.messages import Role
from embedfleet.tuning.models import TrainedModel, load_model, merged_state
from embedfleet.tuning.settings import EmbedderSettings
from embedfleet.tuning.states import all_weights

LENGTHS = torch.tensor([23, 17, 17, 9, 1])


def settings(source: Path, **changes: Any) -> EmbedderSettings:
    content = {
        "model": {"source": str(source)},
        "output": {"folder": "o"},
        "data": [{"path": "x"}],
        "schedule": {"steps": 1},
    }
    return EmbedderSettings.model_validate_json(json.dumps(content | changes), by_alias=True)


def padded() -> tuple[Tensor, Tensor]:
    """Draw sequences of several lengths; what stands behind their end is anything at all."""
    torch.manual_seed(1)
    return torch.randint(1, 3000, (5, 23)), LENGTHS - 1


def reference(folder: Path) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def reference_states(model: Any, token_ids: Tensor, last: Tensor) -> Tensor:
    """Run every sequence by itself, through the whole model."""
    body = model.model if hasattr(model, "model") else model
    return torch.stack(
        [
            body(input_ids=ids[None, : end + 1]).last_hidden_state[0, -1]
            for ids, end in zip(token_ids, last.tolist(), strict=True)
        ]
    )


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_states_and_gradients_are_those_of_transformers(
    tmp_path: Path, whole: bool, checkpointing: bool, kv_heads: int
) -> None:
    folder = small_model(tmp_path / "m", Role.EMBEDDER, num_key_value_heads=kv_heads)
    model, _, _ = load_model(settings(folder), Role.EMBEDDER)
    model.whole_layers, model.checkpointing = whole, checkpointing
    peer = reference(folder)
    token_ids, last = padded()
    ours, theirs = model(token_ids, last), reference_states(peer, token_ids, last)
    assert torch.allclose(ours, theirs, atol=2e-6, rtol=1e-5)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    expected = gradients(peer.model)
    found = {name.removeprefix("body."): grad for name, grad in gradients(model).items()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max()
        assert torch.allclose(found[name], gradient, atol=float(scale) * 1e-5), name


@pytest.mark.parametrize("tied", [True, False])
def test_a_reranker_gives_the_log_odds_of_the_whole_vocabulary(tmp_path: Path, tied: bool) -> None:
    folder = small_model(tmp_path / "m", Role.RERANKER, tie_word_embeddings=tied)
    model, tokenizer, _ = load_model(settings(folder), Role.RERANKER)
    yes, no = tokenizer.yes_no_ids()
    peer = reference(folder)
    token_ids, last = padded()
    logits = torch.stack(
        [
            peer(input_ids=ids[None, : end + 1]).logits[0, -1]
            for ids, end in zip(token_ids, last.tolist(), strict=True)
        ]
    )
    assert torch.allclose(model(token_ids, last), logits[:, yes] - logits[:, no], atol=1e-5)


def test_adapters_change_nothing_at_first_and_are_merged_at_last(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "m", Role.EMBEDDER)
    plain, _, _ = load_model(settings(folder), Role.EMBEDDER)
    model, _, _ = load_model(settings(folder, lora={"rank": 3, "alpha": 6}), Role.EMBEDDER)
    token_ids, last = padded()
    assert torch.equal(model(token_ids, last), plain(token_ids, last))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * 2
    assert all(".lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1)
    merged = dict(merged_state(model, all_weights(model)))
    peer = reference(folder)
    assert {*merged} == {n for n, _ in peer.named_parameters()}
    peer.load_state_dict(merged, strict=False)
    theirs = reference_states(peer, token_ids, last)
    assert torch.allclose(model(token_ids, last), theirs, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(plain(token_ids, last), theirs, atol=1e-3)


def test_what_is_frozen_is_not_trained(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "m", Role.EMBEDDER)
    model: TrainedModel
    model, _, _ = load_model(settings(folder, freeze=["embed_tokens", "layers.0."]), Role.EMBEDDER)
    frozen = {n.removeprefix("body.") for n, p in model.named_parameters() if not p.requires_grad}
    assert "embed_tokens.weight" in frozen
    assert all(n.startswith(("embed_tokens.", "layers.0.")) for n in frozen)
    assert len(frozen) == 12


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        (["layers.7."], r"freeze\[0\] is layers.7.: no weight's name begins with it"),
        (["embed", "layers", "norm"], "freeze leaves nothing to train"),
    ],
)
def test_a_freeze_that_cannot_be(tmp_path: Path, freeze: list[str], said: str) -> None:
    folder = small_model(tmp_path / "m", Role.EMBEDDER)
    with pytest.raises(InvalidRequest, match=said):
        load_model(settings(folder, freeze=freeze), Role.EMBEDDER)


def test_a_tokenizer_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "m", Role.EMBEDDER, vocab_size=500)
    with pytest.raises(CheckpointError, match=r"gives ids up to .* but the model has 500 rows"):
        load_model(settings(folder), Role.EMBEDDER)
