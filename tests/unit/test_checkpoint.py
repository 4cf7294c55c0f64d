"""Which checkpoints load and which are refused, by the name of what is wrong with them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedfleet.checkpoint import open_checkpoint
from embedfleet.checkpoint.config import read_config
from embedfleet.checkpoint.layout import canonical_name
from embedfleet.errors import CheckpointError
from embedfleet.messages import Role

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LAYERS, HIDDEN, HEADS, KV, HEAD, WIDE, VOCAB = 2, 24, 4, 2, 8, 40, 400
SHAPES = {
    "embed_tokens.weight": (VOCAB, HIDDEN),
    "norm.weight": (HIDDEN,),
    **{
        f"layers.{i}.{name}": shape
        for i in range(LAYERS)
        for name, shape in {
            "input_layernorm.weight": (HIDDEN,),
            "self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
            "self_attn.k_proj.weight": (KV * HEAD, HIDDEN),
            "self_attn.v_proj.weight": (KV * HEAD, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
            "self_attn.q_norm.weight": (HEAD,),
            "self_attn.k_norm.weight": (HEAD,),
            "post_attention_layernorm.weight": (HIDDEN,),
            "mlp.gate_proj.weight": (WIDE, HIDDEN),
            "mlp.up_proj.weight": (WIDE, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, WIDE),
        }.items()
    },
}
CONFIG = {
    "model_type": "qwen3",
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HEAD,
    "intermediate_size": WIDE,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}


def weights(prefix: str = "", dtype: torch.dtype = torch.float32, head: bool = False):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        prefix + name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in SHAPES.items()
    }
    if head:
        tensors["lm_head.weight"] = torch.randn((VOCAB, HIDDEN), generator=generator).to(dtype)
    return tensors


def write(folder: Path, tensors, config=CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file(tensors, folder / SINGLE)
    return folder


def write_sharded(folder: Path, tensors, config=CONFIG) -> Path:
    write(folder, {}, config)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    weight_map = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[number::3]}, folder / file)
        weight_map |= dict.fromkeys(names[number::3], file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def refused(folder: Path, role: Role = Role.EMBEDDER) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, role)
    return caught.value.message


# ---- what loads


@pytest.mark.parametrize("writer", [write, write_sharded])
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_layout_gives_the_same_tensors(tmp_path, writer, prefix, dtype):
    written = weights(prefix, dtype)
    checkpoint = open_checkpoint(writer(tmp_path / "c", written), Role.EMBEDDER)
    read = dict(checkpoint.tensors())
    assert read.keys() == SHAPES.keys()
    for name, tensor in written.items():
        got = read[canonical_name(name)]
        assert (got.dtype, got.shape) == (dtype, tensor.shape)
        assert torch.equal(got, tensor)
    assert checkpoint.weights_bytes == sum(t.numel() * t.element_size() for t in written.values())


def test_tensors_are_the_callers_own(tmp_path):
    """Two reads share no memory, and neither is tied to the file."""
    checkpoint = open_checkpoint(write(tmp_path, weights()), Role.EMBEDDER)
    first, second = dict(checkpoint.tensors()), dict(checkpoint.tensors())
    first["norm.weight"].zero_()
    assert second["norm.weight"].abs().sum() > 0
    assert load_file(tmp_path / SINGLE)["norm.weight"].abs().sum() > 0


def test_an_embedder_leaves_a_head_alone(tmp_path):
    tensors = weights("model.", head=True)
    checkpoint = open_checkpoint(write(tmp_path, tensors), Role.EMBEDDER)
    assert dict(checkpoint.tensors()).keys() == SHAPES.keys()


def test_an_untied_reranker_reads_its_own_head(tmp_path):
    tensors = weights("model.", head=True)
    folder = write(tmp_path, tensors, CONFIG | {"tie_word_embeddings": False})
    read = dict(open_checkpoint(folder, Role.RERANKER).tensors())
    assert torch.equal(read["lm_head.weight"], tensors["lm_head.weight"])


def test_a_tied_reranker_may_bring_a_copy_of_the_table(tmp_path):
    tensors = weights("model.")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    checkpoint = open_checkpoint(write(tmp_path, tensors), Role.RERANKER)
    assert dict(checkpoint.tensors()).keys() == SHAPES.keys()


# ---- the digest


def digest(folder: Path, role: Role = Role.EMBEDDER) -> str:
    return open_checkpoint(folder, role).weights_digest


def test_digest_does_not_know_sharding_or_prefix(tmp_path):
    one = digest(write(tmp_path / "a", weights()))
    assert digest(write(tmp_path / "b", weights("model."))) == one
    assert digest(write_sharded(tmp_path / "c", weights("model."))) == one
    assert digest(write(tmp_path / "d", weights("model.", head=True))) == one  # head not used


def test_digest_changes_with_one_bit_type_and_name(tmp_path):
    one = digest(write(tmp_path / "a", weights()))
    bit = weights()
    bit["norm.weight"].view(torch.int32)[0] ^= 1
    swapped = weights()
    names = "layers.0.self_attn.q_norm.weight", "layers.1.self_attn.q_norm.weight"
    swapped[names[0]], swapped[names[1]] = swapped[names[1]], swapped[names[0]]
    others = [
        digest(write(tmp_path / "b", bit)),
        digest(write(tmp_path / "c", weights(dtype=torch.bfloat16))),
        digest(write(tmp_path / "d", swapped)),
    ]
    assert len({one, *others}) == 4


def test_digest_after_reading_needs_no_second_read(tmp_path):
    folder = write(tmp_path, weights())
    checkpoint = open_checkpoint(folder, Role.EMBEDDER)
    for _ in checkpoint.tensors():
        pass
    (folder / SINGLE).unlink()
    assert len(checkpoint.weights_digest) == 64


# ---- refused tensors


def without(name):
    def change(tensors):
        del tensors[name]

    return change


def replaced(name, tensor):
    def change(tensors):
        tensors[name] = tensor

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("norm.weight"), "norm.weight is missing, expected with shape [24]"),
        (without("layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj.weight is missing"),
        (
            replaced("layers.0.self_attn.k_proj.weight", torch.zeros(32, 24)),
            "layers.0.self_attn.k_proj.weight has shape [32, 24], expected [16, 24]",
        ),
        (replaced("embed_tokens.weight", torch.zeros(401, 24)), "[401, 24], expected [400, 24]"),
        (replaced("layers.2.mlp.up_proj.weight", torch.zeros(40, 24)), "Qwen3 model of 2 layers"),
        (replaced("layers.0.self_attn.q_proj.bias", torch.zeros(32)), "q_proj.bias is not part"),
        (replaced("rotary_emb.inv_freq", torch.zeros(4)), "rotary_emb.inv_freq is not part"),
        (replaced("norm.weight", torch.zeros(24, dtype=torch.int8)), "norm.weight is I8; F32"),
        (replaced("norm.weight", torch.zeros(24, dtype=torch.float64)), "norm.weight is F64"),
        (replaced("model.norm.weight", torch.zeros(24)), "norm.weight is there twice"),
    ],
)
@pytest.mark.parametrize("writer", [write, write_sharded])
def test_wrong_tensors_are_named(tmp_path, writer, change, expected):
    tensors = weights()
    change(tensors)
    assert expected in refused(writer(tmp_path, tensors))


def test_an_untied_reranker_needs_its_head(tmp_path):
    folder = write(tmp_path, weights("model."), CONFIG | {"tie_word_embeddings": False})
    assert "lm_head.weight is missing" in refused(folder, Role.RERANKER)
    assert open_checkpoint(folder, Role.EMBEDDER)


def test_a_head_called_tied_must_be_the_table(tmp_path):
    folder = write(tmp_path, weights("model.", head=True))
    assert "lm_head.weight differs" in refused(folder, Role.RERANKER)


# ---- refused files


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_a_cut_off_file_is_found_before_anything_is_read(tmp_path, keep):
    file = write(tmp_path, weights()) / SINGLE
    file.write_bytes(file.read_bytes()[:keep])
    message = refused(tmp_path)
    assert str(file) in message
    assert "damaged" in message


def rewritten(file: Path, change) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda h: h["norm.weight"].update(data_offsets=[0, 96]), "does not start where"),
        (lambda h: h["norm.weight"].update(shape=[25]), "norm.weight, F32 [25]"),
        (lambda h: h["norm.weight"].update(shape=[-24]), "norm.weight, F32 [-24]"),
        (lambda h: h["norm.weight"].pop("dtype"), "malformed"),
        (lambda h: h.pop("norm.weight"), "damaged"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, change, expected):
    file = write(tmp_path, weights()) / SINGLE
    rewritten(file, change)
    assert expected in refused(tmp_path)


def test_a_tensor_listed_twice_in_one_header_is_refused(tmp_path):
    file = write(tmp_path, weights()) / SINGLE
    file.write_bytes(file.read_bytes().replace(b"layers.1.", b"layers.0."))
    assert "is listed twice" in refused(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    file = write(tmp_path, weights()) / SINGLE
    checkpoint = open_checkpoint(tmp_path, Role.EMBEDDER)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="ended inside tensor"):
        dict(checkpoint.tensors())


def index(folder: Path, change) -> None:
    content = json.loads((folder / INDEX).read_text())
    change(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.update(x="model-9.safetensors"), "model-9.safetensors, which is not beside"),
        (lambda m: m.update(x="../c/model.safetensors"), "not beside it"),
        (lambda m: m.update(x=m["norm.weight"]), "tensor x is missing, though"),
        (lambda m: m.pop("norm.weight"), "norm.weight is there, but"),
        (
            lambda m: m.update({"norm.weight": m["embed_tokens.weight"]}),
            "norm.weight is there, but model.safetensors.index.json says",
        ),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, change, expected):
    folder = write_sharded(tmp_path / "c", weights())
    index(folder, change)
    assert expected in refused(folder)


def test_a_broken_index_is_refused(tmp_path):
    folder = write_sharded(tmp_path, weights())
    (folder / INDEX).write_text("[]")
    assert "not an index of tensors" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001.bin"])
def test_pickles_are_refused_by_name(tmp_path, name):
    folder = write(tmp_path, weights())
    (folder / SINGLE).rename(folder / name)
    message = refused(folder)
    assert name in message
    assert "can run any code" in message


def test_no_weights_at_all(tmp_path):
    folder = write(tmp_path, weights())
    (folder / SINGLE).unlink()
    assert f"neither {SINGLE} nor {INDEX}" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write(tmp_path, weights())
    (folder / name).unlink()
    assert str(folder / name) in refused(folder)


# ---- files beside the weights


def with_modules(folder: Path, types, pooling) -> Path:
    write(folder, weights())
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [
        {"type": f"some.package.{kind}", "path": "1_Pooling" if kind == "Pooling" else ""}
        for kind in types
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


PUBLISHED_MODULES = ("Transformer", "Pooling", "Normalize")
LAST_TOKEN = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}


@pytest.mark.parametrize("pooling", [LAST_TOKEN, {"pooling_mode": "lasttoken"}])
def test_the_published_modules_are_known(tmp_path, pooling):
    assert open_checkpoint(with_modules(tmp_path, PUBLISHED_MODULES, pooling), Role.EMBEDDER)


@pytest.mark.parametrize(
    ("types", "pooling", "expected"),
    [
        (("Transformer", "Pooling", "Dense"), LAST_TOKEN, "some.package.Dense is not implemented"),
        (PUBLISHED_MODULES, {"pooling_mode": "mean"}, "pooling is mean"),
        (PUBLISHED_MODULES, {"pooling_mode_mean_tokens": True}, "pooling is mean_tokens"),
        (PUBLISHED_MODULES, LAST_TOKEN | {"pooling_mode_cls_token": True}, "lasttoken, cls_token"),
        (PUBLISHED_MODULES, {}, "pooling is unset"),
    ],
)
def test_other_modules_are_never_passed_over(tmp_path, types, pooling, expected):
    assert expected in refused(with_modules(tmp_path, types, pooling))


def test_an_adapter_is_never_passed_over(tmp_path):
    folder = write(tmp_path, weights())
    (folder / "adapter_config.json").write_text("{}")
    assert "adapters are not applied" in refused(folder)


# ---- the configuration


@pytest.mark.parametrize(
    ("change", "theta"),
    [
        ({}, 1e6),
        ({"rope_scaling": None}, 1e6),
        ({"rope_scaling": {"type": "default"}}, 1e6),
        ({"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, 1e6),
    ],
)
def test_rotary_base_of_older_and_newer_files(tmp_path, change, theta):
    assert read_config(write(tmp_path, {}, CONFIG | change)).rope_theta == theta


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling is {'rope_type'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "plain rotary positions"),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn"}}, "rope_parameters is"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters is"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "exactly one value"),
        ({"rope_theta": None}, "exactly one value"),
        ({"rope_theta": -1.0}, "a positive number"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"vocab_size": "400"}, "vocab_size is '400'"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads, 4"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"rms_norm_eps": True}, "rms_norm_eps"),
    ],
)
def test_other_models_are_refused_by_field_and_value(tmp_path, change, expected):
    assert expected in refused(write(tmp_path, weights(), CONFIG | change))


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    folder = write(tmp_path, weights())
    (folder / "config.json").write_text(text)
    assert str(folder / "config.json") in refused(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    from embedfleet.checkpoint import resolve

    shutil.copytree(resolve("embedded/embedder"), tmp_path / "c")
    folder = write(tmp_path / "d", weights())
    shutil.copy(tmp_path / "c" / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match=re.escape("the model has 400 rows")):
        open_checkpoint(folder, Role.EMBEDDER).load_tokenizer()
    assert open_checkpoint(tmp_path / "c", Role.EMBEDDER).load_tokenizer().vocab_size == 10_266
