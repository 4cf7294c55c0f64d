"""The models in the package: what their card says, whole, of the recipe's shape, and of use."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import embedfleet.embedded
from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.embedded.recipe.shapes import SHAPES, config_document
from embedfleet.engine import load_embedder, load_reranker
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, RerankOptions, Role
from embedfleet.tokenization import EmbeddingTokenizer, RerankingTokenizer

FOLDER = Path(embedfleet.embedded.__file__).parent
MAX_BYTES = 20_000_000
FIRST_STAGE = 10


@pytest.mark.parametrize("role", list(Role))
def test_files_are_those_of_the_card(role):
    """Its digests are what a vector made by the package can be traced to."""
    checkpoint = open_checkpoint(resolve(f"embedded/{role}"), role)
    card = (FOLDER / "README.md").read_text()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert hashlib.sha256((checkpoint.folder / name).read_bytes()).hexdigest() in card
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors()} == expected_tensors(
        SHAPES[role], role
    )
    said = json.loads((checkpoint.folder / "config.json").read_text())
    assert said.items() >= dict(config_document(role)).items()


def test_both_fit_into_a_repository():
    folders = [resolve(f"embedded/{role}") for role in Role]
    assert sum(file.stat().st_size for each in folders for file in each.iterdir()) < MAX_BYTES


def test_both_roles_tokenize():
    embedder = open_checkpoint(resolve("embedded/embedder"), Role.EMBEDDER)
    tokenizer = embedder.load_tokenizer()
    (query,) = EmbeddingTokenizer(tokenizer, embedder.config.max_tokens)(
        [EmbedItem("yes")], EmbedOptions(InputType.QUERY), "find"
    )
    assert query.token_ids[-1] == tokenizer.special_tokens["<|endoftext|>"]
    reranker = open_checkpoint(resolve("embedded/reranker"), Role.RERANKER)
    tokenizer = reranker.load_tokenizer()
    assert tokenizer.final_token_id is None
    assert len(set(tokenizer.yes_no_ids())) == 2
    tokens = RerankingTokenizer(tokenizer, 200)("fox", ["dog"], RerankOptions(), "find")
    assert tokenizer.decode(tokens.documents[0].token_ids).startswith(" dog<|im_end|>")


def demo(name: str) -> list[dict[str, str]]:
    text = (resources.files(embedfleet.embedded) / "demo" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_demo_finds_what_its_questions_ask_for():
    """Plain questions, none of them in training: the top result of search and second stage."""
    corpus, questions = demo("corpus.jsonl"), demo("questions.jsonl")
    assert len(questions) == 20
    with load_embedder("embedded/embedder") as embedder:
        documents = embedder.embed([each["text"] for each in corpus], "DOCUMENT")
        asked = embedder.embed([each["question"] for each in questions], "QUERY")
    right = 0
    with load_reranker("embedded/reranker") as reranker:
        for query, cosines in zip(questions, asked @ documents.T, strict=True):
            near = np.argsort(-cosines, kind="stable")[:FIRST_STAGE]
            scores = reranker.score(query["question"], [corpus[i]["text"] for i in near])
            right += corpus[near[scores.argmax()]]["id"] == query["answer"]
    assert right >= 15  # 16 in float32; another CPU may turn a close one
