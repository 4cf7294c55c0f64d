"""Checkpoints as transformers saves them: sharded or not, either class, tied or not."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from embedfleet.checkpoint import open_checkpoint
from embedfleet.checkpoint.layout import canonical_name
from embedfleet.messages import Role


def config(tied: bool) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=512,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        tie_word_embeddings=tied,
    )


@pytest.mark.parametrize("max_shard_size", ["5GB", "60KB"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [Qwen3ForCausalLM, Qwen3Model])
def test_saved_models_load_as_they_are(tmp_path, kind, tied, max_shard_size):
    torch.manual_seed(0)
    model = kind(config(tied)).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert len(list(tmp_path.glob("*.safetensors"))) > (max_shard_size == "60KB")
    role = Role.EMBEDDER if kind is Qwen3Model else Role.RERANKER
    checkpoint = open_checkpoint(tmp_path, role)
    assert (checkpoint.config.rope_theta, checkpoint.config.tied_lm_head) == (1e6, tied)
    read = dict(checkpoint.tensors())
    own = {canonical_name(name): tensor for name, tensor in model.state_dict().items()}
    if tied:
        own.pop("lm_head.weight", None)
    assert read.keys() == own.keys()
    assert all(torch.equal(read[name], own[name]) for name in own)
