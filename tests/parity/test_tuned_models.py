"""After training, the model that transformers trained and the engine that serves it agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import Quiet, small_model, write_examples, write_settings
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from embedfleet.engine import load_embedder, load_reranker
from embedfleet.engine.torch.options import EngineOptions
from embedfleet.messages import Role
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX
from embedfleet.tuning.settings import read_settings
from embedfleet.tuning.training import train
from embedfleet.tuning.workers import Worker

TEXTS = ["amber 3", "fjord and oasis", "a much longer text of tundra, vale and wharf " * 12, "x"]
ON_CPU = EngineOptions(device="cpu", dtype="float32")


def tuned(place: Path, role: Role, **sections: object) -> Path:
    write_examples(place / "examples.jsonl")
    source = {"source": str(small_model(place / "model", role))}
    given = {"schedule": {"steps": 12}, "optimizer": {"learningRate": 5e-3}}
    file = write_settings(place / "tune.yaml", model=source, **(given | sections))
    return train(read_settings(file, role), Worker(), Quiet())


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.1}], ids=["full", "adapters"])
def test_an_embedder_gives_the_same_vectors(tmp_path: Path, lora: object) -> None:
    folder = tuned(tmp_path, Role.EMBEDDER, lora=lora)
    peer = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with load_embedder(folder, options=ON_CPU) as embedder:
        vectors = embedder.embed(TEXTS, "DOCUMENT")
        queries = embedder.embed(TEXTS, "QUERY", instruction="Find words")
    for text, vector, query in zip(TEXTS, vectors, queries, strict=True):
        for given, found in ((text, vector), (f"Instruct: Find words\nQuery:{text}", query)):
            ids = tokenizer(given, return_tensors="pt").input_ids
            state = peer(ids).last_hidden_state[0, -1].detach().double().numpy()
            assert found @ state / np.linalg.norm(state) >= 1 - 1e-6


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_reranker_gives_the_same_scores(tmp_path: Path, tied: bool) -> None:
    write_examples(tmp_path / "examples.jsonl")
    source = small_model(tmp_path / "model", Role.RERANKER, tie_word_embeddings=tied)
    file = write_settings(
        tmp_path / "tune.yaml", model={"source": str(source)}, optimizer={"learningRate": 5e-3}
    )
    folder = train(read_settings(file, Role.RERANKER), Worker(), Quiet())
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with load_reranker(folder, options=ON_CPU) as reranker:
        scores = reranker.score("amber 3", TEXTS, instruction="Find words")
    yes, no = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("yes", "no"))
    for text, score in zip(TEXTS, scores, strict=True):
        body = f"<Instruct>: Find words\n<Query>: amber 3\n<Document>: {text}"
        prompt = RERANK_PREFIX + body + RERANK_SUFFIX
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        logits = peer(ids).logits[0, -1, [no, yes]].detach()
        assert score == pytest.approx(float(logits.log_softmax(-1)[1].exp()), abs=2e-6)
