"""tune.yaml: what it means, and all that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedfleet.errors import InvalidManifest, InvalidRequest
from embedfleet.messages import Role
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings, read_settings

LEAST = """
model: {source: embedded/embedder}
output: {folder: run}
data: [{path: a.jsonl}]
schedule: {steps: 10}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "tune.yaml"
    file.write_text(text)
    return file


def test_four_lines_are_enough(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, LEAST), Role.EMBEDDER)
    assert isinstance(settings, EmbedderSettings)
    assert (settings.loss.temperature, settings.loss.margin) == (0.05, 0.1)
    assert settings.lora is None
    reranker = read_settings(written(tmp_path, LEAST), Role.RERANKER)
    assert isinstance(reranker, RerankerSettings)
    assert reranker.sequence.negatives == 7


def test_numbers_with_an_exponent_need_no_point(tmp_path: Path) -> None:
    text = LEAST + "optimizer: {learningRate: 2e-5, weightDecay: 1.5E-2}\n"
    optimizer = read_settings(written(tmp_path, text), Role.EMBEDDER).optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (2e-5, 0.015)


def test_values_are_replaced_by_path(tmp_path: Path) -> None:
    given = {
        "schedule.steps": 25,
        "optimizer.learningRate": 1e-3,
        "freeze": ["embed_tokens"],
    }
    settings = read_settings(written(tmp_path, LEAST), Role.EMBEDDER, given)
    assert settings.schedule.steps == 25
    assert settings.optimizer.learning_rate == 1e-3
    assert settings.freeze == ("embed_tokens",)
    adapted = read_settings(written(tmp_path, LEAST), Role.EMBEDDER, {"lora.rank": 4})
    assert adapted.lora is not None
    assert adapted.lora.rank == 4


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("batch: {sise: 4}", "batch.sise is 4: is not a field here. Did you mean size?"),
        ("batch: {size: 1}", "batch.size is 1: must be at least 2. Raise it."),
        ("batch: {size: many}", 'batch.size is "many": must be a whole number. Write it without'),
        ("loss: {temperature: 0}", "loss.temperature is 0: must be at least 0.001. Raise it."),
        (
            "loss: {matryoshka: [{dimension: 32}, {dimension: 32}]}",
            "loss.matryoshka[1].dimension is 32: is named twice. Remove one of the two.",
        ),
        ("precision: float16", "precision is float16: must be one of float32, bfloat16. Did you"),
        ("lora: {targets: [qproj]}", "lora.targets[0] is qproj: must be one of q_proj, k_proj,"),
        ("lora: {rank: 0}", "lora.rank is 0: must be at least 1. Raise it."),
        ("workers: {strategy: zero}", "workers.strategy is zero: must be one of ddp, fsdp."),
        ("optimizer: {learningRate: 0}", "optimizer.learningRate is 0: must be more than 0."),
        ("sampling: {temperature: 0.5}", "sampling.temperature is 0.5: must be at least 1."),
        (
            "batch: {size: 6}\nworkers: {count: 4}",
            "batch.size is 6: must be a multiple of workers.count, which is 4. Take 4 or 8, or",
        ),
        (
            "batch: {size: 2}\nworkers: {count: 4}",
            "batch.size is 2: must be a multiple of workers.count, which is 4. Take 4, or change",
        ),
        ("workers: {count: 3}", "batch.size is 256: must be a multiple of workers.count, which"),
        (
            "lora: {rank: 4}\nfreeze: [embed_tokens, layers.0.]",
            "freeze is embed_tokens, layers.0.: stands beside lora, which trains adapters only",
        ),
        (
            "lora: {}\noptimizer: {embeddingLearningRate: 0.001}",
            "optimizer.embeddingLearningRate is 0.001: stands beside lora, which trains adapters",
        ),
        ("seed: -1", "seed is -1: must be at least 0. Raise it."),
    ],
)
def test_a_mistake_names_field_value_limit_and_next_move(
    tmp_path: Path, added: str, said: str
) -> None:
    with pytest.raises(InvalidManifest) as caught:
        read_settings(written(tmp_path, LEAST + added + "\n"), Role.EMBEDDER)
    assert f"[1]: {said}" in caught.value.message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = "output: {dtype: int8}\ndata: []\nschedule: {steps: 1, epochs: 1}\nbatch: {size: 0}\n"
    with pytest.raises(InvalidManifest) as caught:
        read_settings(written(tmp_path, text), Role.EMBEDDER)
    told = [each.path for each in caught.value.problems]
    assert sorted(told) == [
        "batch.size",
        "data",
        "model",
        "output.dtype",
        "output.folder",
        "schedule.steps",
    ]


def test_a_role_has_only_its_own_fields(tmp_path: Path) -> None:
    file = written(tmp_path, LEAST + "loss: {margin: 0.2}\n")
    with pytest.raises(InvalidManifest, match="loss is"):
        read_settings(file, Role.RERANKER)
    assert read_settings(file, Role.EMBEDDER).role is Role.EMBEDDER


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (": :", "is not YAML"),
        ("", "has 0 YAML documents; one is needed"),
        (LEAST + "---\n" + LEAST, "has 2 YAML documents"),
        ("batch: {size: 2, size: 3}", "the key size stands here twice"),
        ("- a", "document is"),
    ],
)
def test_what_is_no_settings_at_all(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((InvalidManifest, InvalidRequest), match=said):
        read_settings(written(tmp_path, text), Role.EMBEDDER)


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "tune.yaml"
    file.write_bytes(b"model: \xff")
    with pytest.raises(InvalidManifest, match="is not UTF-8 at byte 7"):
        read_settings(file, Role.EMBEDDER)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data.path", "b", "data.path cannot be set: data is "),
        ("batch.", "1", "names no field. Write section.field"),
        ("batch..size", "1", "names no field. Write section.field"),
    ],
)
def test_an_override_that_cannot_be(tmp_path: Path, field: str, value: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said.replace("[", r"\[").replace(".", r"\.")):
        read_settings(written(tmp_path, LEAST), Role.EMBEDDER, {field: value})
