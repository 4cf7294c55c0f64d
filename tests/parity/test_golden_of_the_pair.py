"""What the embedded models give for the golden set is on record, by transformers, and still given.

Tokens are those of Hugging Face `tokenizers` and prompts are written out here, so that nothing
under test stands on both sides. `--rewrite-golden` records anew, after other weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM

import embedfleet.embedded
from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.engine import load_embedder, load_reranker
from embedfleet.golden import GOLDEN_DOCUMENTS, GOLDEN_QUERY, GOLDEN_TEXTS, Golden
from embedfleet.messages import Float32Array, InputType, Role
from embedfleet.resources.contract import contract_hash, contract_of

RECORDS = Path(embedfleet.embedded.__file__).parent / "golden"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
CLOSE = 2e-3
"""Vectors are recorded in float16; scores of another CPU differ in the last bits of float32."""

Rows = Mapping[int, Float32Array]


@torch.inference_mode()
def by_transformers(role: Role) -> Rows:
    folder = resolve(f"embedded/{role}")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])

    if role is Role.EMBEDDER:
        texts = [
            f"Instruct: {INSTRUCTION}\nQuery:{text}" if kind is InputType.QUERY else text
            for kind, text in GOLDEN_TEXTS
        ]
        states = [model.model(ids(f"{text}<|endoftext|>"))[0][0, -1] for text in texts]
        return {n: (each / each.norm()).numpy() for n, each in enumerate(states)}
    yes, no = (tokenizer.token_to_id(word) for word in ("yes", "no"))
    scores = {}
    for n, document in enumerate(GOLDEN_DOCUMENTS):
        prompt = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<Instruct>: {INSTRUCTION}\n"
            f"<Query>: {GOLDEN_QUERY}\n<Document>: {document}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        logits = model(ids(prompt)).logits[0, -1]
        scores[n] = (logits[yes] - logits[no]).reshape(1).numpy()
    return scores


def by_engine(role: Role) -> Rows:
    source = f"embedded/{role}"
    if role is Role.EMBEDDER:
        with load_embedder(source) as embedder:
            rows = [embedder.embed([text], kind)[0] for kind, text in GOLDEN_TEXTS]
    else:
        with load_reranker(source) as reranker:
            chances = reranker.score(GOLDEN_QUERY, list(GOLDEN_DOCUMENTS))
        rows = [np.log(each / (1 - each)).reshape(1) for each in chances]
    return dict(enumerate(rows))


def hash_of(role: Role) -> str:
    source = f"embedded/{role}"
    checkpoint = open_checkpoint(resolve(source), role)
    digests = (checkpoint.weights_digest, checkpoint.load_tokenizer().digest)
    return contract_hash(contract_of(role, source, "", digests, "float32"))


@pytest.mark.parametrize("role", list(Role))
def test_what_is_on_record_is_given(role: Role, request: pytest.FixtureRequest) -> None:
    record = RECORDS / f"{role}.json"
    if request.config.getoption("--rewrite-golden"):
        recorded = Golden.of(role, hash_of(role), INSTRUCTION, by_transformers(role))
        record.parent.mkdir(exist_ok=True)
        record.write_text(recorded.to_json() + "\n")
    golden = Golden.from_json(record.read_text(), record.name)
    assert golden.contract_hash == hash_of(role), "other weights: record anew"
    for given in (by_transformers(role), by_engine(role)):
        for place, row in golden.decoded().items():
            assert np.abs(given[place] - row).max() < CLOSE, place
