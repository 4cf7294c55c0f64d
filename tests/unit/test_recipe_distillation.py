"""What a scorer has of an embedder learns to say what the embedder says, and nothing else does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import embedfleet.embedded
from embedfleet.checkpoint import resolve
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.recipe.distillation import Distillation, distil
from embedfleet.embedded.recipe.scorer import copied_parts
from embedfleet.embedded.recipe.shapes import SHAPES
from embedfleet.messages import Role

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = {f"model.{name}": mark for name, mark in copied_parts(SHAPES[Role.RERANKER]).items()}
FEW = Distillation(steps=20, queries=2, documents=2, learning_rate=3e-4)


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """The demo's questions with their answers: fewer documents than a query is to have."""
    demo = Path(embedfleet.embedded.__file__).parent / "demo"
    corpus, questions = (
        [json.loads(line) for line in (demo / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "questions.jsonl")
    )
    texts = {each["id"]: each["text"] for each in corpus}
    file = tmp_path_factory.mktemp("mined") / "demo.jsonl"
    lines = ({"query": q["question"], "positives": [texts[q["answer"]]]} for q in questions)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory) -> Path:
    """The scorer that ships, with noise in what it has of the embedder."""
    folder = tmp_path_factory.mktemp("first") / "reranker"
    shutil.copytree(resolve("embedded/reranker"), folder)
    tensors = {name: each.float() for name, each in load_file(folder / SINGLE_FILE).items()}
    generator = torch.Generator().manual_seed(0)
    for name, mark in PARTS.items():
        noise = torch.randn(mark.shape, generator=generator) * tensors[name].std()
        tensors[name] += 0.3 * mark * noise
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def trained(disturbed, examples, tmp_path_factory):
    target = tmp_path_factory.mktemp("merged") / "reranker"
    seen = distil(disturbed, resolve("embedded/embedder"), [examples], target, FEW)
    return target, seen


def test_the_two_agree_better_than_before(trained):
    _, seen = trained
    assert len(seen) == FEW.steps
    for name in ("documents", "queries"):
        values = [getattr(each, name) for each in seen]
        assert np.mean(values[:4]) + 0.01 < np.mean(values[-4:])


def test_only_what_stands_for_the_embedder_changes(disturbed, trained):
    before, after = (load_file(each / SINGLE_FILE) for each in (disturbed, trained[0]))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        same = tensor == after[name]
        if name not in PARTS:
            assert same.all(), name
        else:
            assert same[PARTS[name] == 0].all(), name
            assert not same.all(), name


def test_a_model_that_is_there_is_not_replaced(disturbed, examples, trained):
    with pytest.raises(FileExistsError, match=str(trained[0])):
        distil(disturbed, resolve("embedded/embedder"), [examples], trained[0], FEW)
