"""First checkpoints: a vocabulary, an embedder around a bag of words, a reranker around that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint import open_checkpoint
from embedfleet.checkpoint.config import CONFIG_FILE
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.recipe.bag import BagTraining, Texts, first_bag, train_bag
from embedfleet.embedded.recipe.layers import NUM_RESERVED, bag_weights
from embedfleet.embedded.recipe.scorer import scorer_weights
from embedfleet.embedded.recipe.scorer_rows import Words
from embedfleet.embedded.recipe.shapes import NUM_ORDINARY_TOKENS, SHAPES, config_document
from embedfleet.embedded.recipe.teacher import spelling_vectors, text_vectors
from embedfleet.embedded.vocabulary import FINAL_TOKEN, small
from embedfleet.messages import Role, TokenIds
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, query_head, rerank_head
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = ["ask_teacher", "make_embedder", "make_reranker", "make_vocabulary", "prompt_words"]

_PROMPT_WEIGHT: Final = 200
"""How often prompts are among the texts, so that their words are tokens."""

_PLAIN: Final = "words"
"""The source of plain English: what its texts mean is what the teacher knows best."""

_PLAIN_WEIGHT: Final = 4
"""How often its texts are among those of the vocabulary, where programs' words are most."""

_RETRIEVED: Final = ("docstrings", "manuals", "packages")
"""Sources whose documents are like those that are searched; the others define words."""

Sources = Mapping[str, list[tuple[str, str]]]


def make_vocabulary(data: Path, target: Path) -> None:
    """Train the vocabulary on everything that is trained on, and write `ROLE/tokenizer.json`."""
    texts = list(_texts(_read(data)))
    for role in Role:
        folder = target / role
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER_FILE).write_bytes(small(texts, NUM_ORDINARY_TOKENS, role))


def ask_teacher(data: Path, target: Path) -> None:
    """Write what the teacher makes of plain queries and documents: a file of two arrays."""
    queries, documents = zip(*_read(data)[_PLAIN], strict=True)
    part = target.with_suffix(".part.npz")
    part.parent.mkdir(parents=True, exist_ok=True)
    asked, answering = (text_vectors(texts).astype(np.float16) for texts in (queries, documents))
    np.savez(part, queries=asked, documents=answering)
    part.rename(target)


def make_embedder(
    data: Path, taught: Path, target: Path, training: BagTraining | None = None
) -> None:
    """Train the bag of words and write it as an embedder.

    Args:
        data: What `gather` wrote.
        taught: What `ask_teacher` wrote.
        target: Holds `tokenizer.json`.
        training: Of the bag.
    """
    tokenizer = Tokenizer.load(target)
    encoded = {name: _encoded(pairs, tokenizer) for name, pairs in _read(data).items()}
    with np.load(taught) as vectors:
        said = vectors["queries"], vectors["documents"]
    encoded[_PLAIN] = replace(encoded[_PLAIN], taught=said)
    shape = SHAPES[Role.EMBEDDER]
    counts = np.zeros(shape.vocab_size, np.int64)
    for texts in encoded.values():
        counts += np.bincount(np.concatenate(texts.documents), minlength=shape.vocab_size)
    spellings = [tokenizer.decode([i]) for i in range(tokenizer.highest_ordinary_id + 1)]
    known = spelling_vectors(spellings)
    teacher = np.zeros((shape.vocab_size, known.shape[1]), np.float32)
    teacher[: len(spellings)] = known
    bag = first_bag(teacher, counts, shape.hidden_size - NUM_RESERVED)
    bag = train_bag(bag, encoded, training or BagTraining())
    final_id = tokenizer.special_tokens[FINAL_TOKEN]
    _write(target, Role.EMBEDDER, bag_weights(bag, shape, Role.EMBEDDER, final_id))


def make_reranker(data: Path, embedder: Path, target: Path) -> None:
    """Write a trained embedder and rarities of tokens as a reranker.

    Args:
        data: What `gather` wrote.
        embedder: Checkpoint of the first one's shape.
        target: Holds `tokenizer.json`.
    """
    tokenizer = Tokenizer.load(target)
    trained, shape = open_checkpoint(embedder, Role.EMBEDDER), SHAPES[Role.RERANKER]
    weights = {name: each.float() for name, each in trained.tensors()}
    documents = [
        document
        for name, pairs in _read(data).items() if name in _RETRIEVED
        for document in tokenizer.encode_batch([document for _, document in pairs])
    ]  # fmt: skip
    rarity = _rarity(documents, shape.vocab_size)
    made = scorer_weights(weights, rarity, trained.config, shape, prompt_words(tokenizer))
    _write(target, Role.RERANKER, made)


def prompt_words(tokenizer: Tokenizer) -> Words:
    """Find the words of the reranking prompt in a vocabulary."""
    special = tokenizer.special_tokens
    yes, no = tokenizer.yes_no_ids()
    opening = (tokenizer.single_token_id(f"<{each}") for each in ("Instruct", "Query", "Document"))
    instruction, query, document = opening
    return Words(
        instruction=instruction,
        query=query,
        document=document,
        start=special["<|im_start|>"],
        suffix=tuple(tokenizer.encode_template(RERANK_SUFFIX).tolist()),
        gathers=special["<think>"],
        rests=special["</think>"],
        empty=tuple(map(tokenizer.single_token_id, (">:", "\n", "assistant"))),
        yes=yes,
        no=no,
        special=tuple(sorted(tokenizer.special_ids)),
    )


def _rarity(documents: Sequence[TokenIds], vocab_size: int) -> Tensor:
    """Return BM25's inverse document frequency of every token: (vocab,)."""
    found = np.zeros(vocab_size)
    for document in documents:
        found[np.unique(document)] += 1
    return torch.from_numpy(np.log1p((len(documents) - found + 0.5) / (found + 0.5))).float()


def _write(folder: Path, role: Role, weights: Mapping[str, Tensor]) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps(config_document(role), indent=2) + "\n")
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})


def _read(data: Path) -> Sources:
    found = {}
    for file in sorted((data / "train").glob("*.jsonl")):
        lines = map(json.loads, file.read_text().splitlines())
        found[file.stem] = [(line["query"], line["positives"][0]) for line in lines]
    return found


def _texts(sources: Sources) -> Iterator[str]:
    prompts = RERANK_PREFIX + query_head(DEFAULT_INSTRUCTION) + RERANK_SUFFIX
    yield from (prompts + rerank_head(DEFAULT_INSTRUCTION, " yes no yes no"),) * _PROMPT_WEIGHT
    for name, pairs in sources.items():
        for query, document in pairs:
            yield from (query, document) * (_PLAIN_WEIGHT if name == _PLAIN else 1)


def _encoded(pairs: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> Texts:
    queries, documents = zip(*pairs, strict=True)
    head = query_head(DEFAULT_INSTRUCTION)
    asked = tokenizer.encode_batch([head + query for query in queries])
    return Texts(asked, tokenizer.encode_batch(list(documents)))
