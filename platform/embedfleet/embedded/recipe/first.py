"""The first checkpoints: vocabulary from the texts, bag of words from pairs, layers around it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint.config import CONFIG_FILE
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.recipe.bag import Bag, BagTraining, first_bag, train_bag
from embedfleet.embedded.recipe.layers import NUM_RESERVED, bag_weights
from embedfleet.embedded.recipe.scorer import Words, scorer_weights
from embedfleet.embedded.recipe.shapes import NUM_ORDINARY_TOKENS, SHAPES, config_document
from embedfleet.embedded.recipe.teacher import spelling_vectors
from embedfleet.embedded.vocabulary import FINAL_TOKEN, small
from embedfleet.messages import Role, TokenIds
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, query_head, rerank_head
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = ["make_first", "make_vocabulary", "write_first"]

_PROMPT_WEIGHT: Final = 200
"""How often prompts are among the texts, so that their words are tokens."""

Sources = Mapping[str, list[tuple[str, str]]]


def make_vocabulary(data: Path, target: Path) -> None:
    """Train the vocabulary on everything that is trained on, and write `ROLE/tokenizer.json`."""
    texts = list(_texts(_read(data)))
    for role in Role:
        folder = target / role
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER_FILE).write_bytes(small(texts, NUM_ORDINARY_TOKENS, role))


def make_first(data: Path, target: Path, training: BagTraining | None = None) -> None:
    """Train the bag of words and write both first checkpoints beside their vocabulary.

    Args:
        data: What `gather` wrote.
        target: Holds `embedder/tokenizer.json` and `reranker/tokenizer.json`.
        training: Of the bag.
    """
    tokenizer = Tokenizer.load(target / Role.EMBEDDER)
    encoded = {name: _encoded(pairs, tokenizer) for name, pairs in _read(data).items()}
    shape = SHAPES[Role.EMBEDDER]
    counts = np.zeros(shape.vocab_size, np.int64)
    for _, documents in encoded.values():
        counts += np.bincount(np.concatenate(documents), minlength=shape.vocab_size)
    spellings = [tokenizer.decode([i]) for i in range(tokenizer.highest_ordinary_id + 1)]
    known = spelling_vectors(spellings)
    teacher = np.zeros((shape.vocab_size, known.shape[1]), np.float32)
    teacher[: len(spellings)] = known
    bag = first_bag(teacher, counts, shape.hidden_size - NUM_RESERVED)
    write_first(train_bag(bag, encoded, training or BagTraining()), target)


def write_first(bag: Bag, target: Path) -> None:
    """Write a trained bag as an embedder and as a reranker."""
    tokenizer = Tokenizer.load(target / Role.RERANKER)
    final_id = tokenizer.special_tokens[FINAL_TOKEN]
    yes, no = tokenizer.yes_no_ids()
    words = Words(
        document=tokenizer.single_token_id("<Document"),
        query=tokenizer.single_token_id("<Query"),
        start=tokenizer.special_tokens["<|im_start|>"],
        yes=yes,
        no=no,
        last=int(tokenizer.encode_template(RERANK_SUFFIX)[-1]),
        special=tuple(sorted(tokenizer.special_ids)),
    )
    _write(target, Role.EMBEDDER, bag_weights(bag, SHAPES[Role.EMBEDDER], Role.EMBEDDER, final_id))
    _write(target, Role.RERANKER, scorer_weights(bag, SHAPES[Role.RERANKER], words))


def _write(target: Path, role: Role, weights: Mapping[str, Tensor]) -> None:
    folder = target / role
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
    for pairs in sources.values():
        for query, document in pairs:
            yield query
            yield document


def _encoded(
    pairs: Iterable[tuple[str, str]], tokenizer: Tokenizer
) -> tuple[list[TokenIds], list[TokenIds]]:
    queries, documents = zip(*pairs, strict=True)
    head = query_head(DEFAULT_INSTRUCTION)
    asked = tokenizer.encode_batch([head + query for query in queries])
    return asked, tokenizer.encode_batch(list(documents))
