"""Trains what a scorer has of an embedder until it says what the embedder says.

As written (`scorer.py`) it loses some: rows are of one length, a document begins with a space, a
transform has fewer units. So the parts that stand for the embedder, and those alone, are trained on
its vectors: the states that are compared are to point where those point, and, among documents of
one query, their cosines are to differ as the embedder's do.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint.config import CONFIG_FILE
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.recipe.first import prompt_words
from embedfleet.embedded.recipe.scorer import SLICES, copied_parts
from embedfleet.embedded.recipe.scorer_rows import CONTENT, Words
from embedfleet.embedded.recipe.shapes import SHAPES
from embedfleet.embedded.vocabulary import FINAL_TOKEN
from embedfleet.messages import Role
from embedfleet.prompts import RERANK_PREFIX, document_tail, query_head, rerank_head
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE
from embedfleet.tokenization.tokenizer import Tokenizer

__all__ = ["Agreement", "Distillation", "distil"]

_DIFFERENCES_WEIGHT: Final = 20.0
_MAX_TOKENS: Final = (40, 96, 128)
"""Kept of a document, drawn for each."""
_WARM_UP_STEPS: Final = 20
_REPORT_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Distillation:
    """How a scorer is trained: documents are those of one query, its answer and negatives."""

    steps: int
    queries: int = 8
    documents: int = 8
    learning_rate: float = 1e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Means over a batch.

    Attributes:
        documents: Cosine of the scorer's state for a document and the embedder's vector.
        queries: The same for queries.
        differences: Correlation, over documents of one query, of their cosines in both.
    """

    documents: float
    queries: float
    differences: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """Token ids: what the scorer reads, pair by pair, and what the embedder reads."""

    pairs: list[list[int]]
    documents: list[list[int]]
    queries: list[list[int]]


class _Batches:
    """Draws batches from mined examples, as many of one source as of another."""

    def __init__(
        self, scorer: Path, embedder: Path, examples: Sequence[Path], settings: Distillation
    ) -> None:
        self._scorer, self._embedder = Tokenizer.load(scorer), Tokenizer.load(embedder)
        self._sources = [each.read_text().splitlines() for each in examples]
        self._settings = settings
        self._random = random.Random(settings.seed)
        self.words = prompt_words(self._scorer)

    def draw(self) -> _Batch:
        batch = _Batch([], [], [])
        system = self._scorer.encode_template(RERANK_PREFIX).tolist()
        final = self._embedder.special_tokens[FINAL_TOKEN]
        for _ in range(self._settings.queries):
            query, documents = self._example()
            read = query_head(DEFAULT_INSTRUCTION) + query
            batch.queries.append([*self._embedder.encode(read).tolist(), final])
            head = self._scorer.encode(rerank_head(DEFAULT_INSTRUCTION, query)).tolist()
            for document in documents:
                kept = self._random.choice(_MAX_TOKENS)
                tail = self._scorer.encode(document_tail(document)).tolist()[:kept]
                batch.pairs.append([*system, *head, *tail, *self.words.suffix])
                batch.documents.append([*self._embedder.encode(document).tolist()[:kept], final])
        return batch

    def _example(self) -> tuple[str, list[str]]:
        """Draw a query and its documents; where too few were mined, others' answers are added."""
        found = self._line()
        documents = [found["positives"][0], *found.get("negatives", ())]
        while len(documents) < self._settings.documents:
            documents.append(self._line()["positives"][0])
        return found["query"], documents[: self._settings.documents]

    def _line(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(
            self._random.choice(self._random.choice(self._sources))
        )
        return found


def distil(
    scorer: Path,
    embedder: Path,
    examples: Sequence[Path],
    target: Path,
    settings: Distillation,
) -> list[Agreement]:
    """Train a scorer's copy of an embedder.

    Args:
        scorer: Checkpoint that `scorer_weights` wrote.
        embedder: The one that it was written from.
        examples: Files of queries with positives and negatives, as `embedfleet mine` writes them.
        target: Folder that is made when all is done.
        settings: How.

    Returns:
        How well both agreed in every step, before it.

    Raises:
        FileExistsError: The target is there already.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already. Remove it, or name another folder.")
    batches = _Batches(scorer, embedder, examples, settings)
    pair = _Pair(scorer, embedder, batches.words)
    optimizer = torch.optim.Adam(pair.trained.values(), betas=(0.9, 0.98))
    seen = []
    for step in range(settings.steps):
        decay = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
        warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * warm * decay
        loss, agreement = pair.compare(batches.draw())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(pair.trained.values(), 1.0)
        optimizer.step()
        seen.append(agreement)
        if step % _REPORT_STEPS == 0:
            sys.stderr.write(f"step {step}: {agreement}\n")
    tensors = load_file(scorer / SINGLE_FILE)
    tensors |= {f"model.{name}": each.detach() for name, each in pair.trained.items()}
    part = target.with_name(f"{target.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, TOKENIZER_FILE):
        shutil.copyfile(scorer / name, part / name)
    save_file(tensors, part / SINGLE_FILE, metadata={"format": "pt"})
    part.rename(target)
    return seen


class _Pair:
    """A scorer without its last layer, which compares, beside the embedder.

    Attributes:
        trained: Weights by canonical name; no gradient reaches what is not the embedder's of them.
    """

    def __init__(self, scorer: Path, embedder: Path, words: Words) -> None:
        # Here, because transformers takes seconds to import.
        from transformers import AutoModel

        self._embedder = AutoModel.from_pretrained(embedder, dtype=torch.float32)
        self._scorer = AutoModel.from_pretrained(scorer, dtype=torch.float32)
        self._scorer.layers = self._scorer.layers[:-1]
        self._scorer.norm = torch.nn.Identity()
        self._final_norm = self._embedder.norm.weight.detach()[:CONTENT]
        self._query_from_end = len(words.suffix) - 1 - words.suffix.index(words.gathers)
        self._scorer.requires_grad_(False)
        weights = dict(self._scorer.named_parameters())
        self.trained = {}
        for name, mark in copied_parts(SHAPES[Role.RERANKER]).items():
            self.trained[name] = weights[name].requires_grad_()
            weights[name].register_hook(mark.mul)

    def compare(self, batch: _Batch) -> tuple[Tensor, Agreement]:
        """Return the loss, and how well the two agree."""
        wanted, asked = self._vectors(batch.documents), self._vectors(batch.queries)
        each_query = (len(batch.queries), -1)
        asked = asked.repeat_interleave(len(wanted) // len(asked), 0)
        token_ids, last = _padded(batch.pairs)
        states = self._scorer(input_ids=token_ids, use_cache=False).last_hidden_state
        rows = torch.arange(len(last))
        documents, queries = (
            states[rows, place, :CONTENT] * self._final_norm
            for place in (last, last - self._query_from_end)
        )
        of_documents = _cosines(documents, wanted[:, :CONTENT]).mean()
        of_queries = _cosines(queries, asked[:, :CONTENT]).mean()
        slices = [_cosines(documents[:, each], queries[:, each]) for each in SLICES]
        found = torch.stack(slices).mean(0).view(each_query)
        wanted_cosines = _cosines(wanted, asked).view(each_query)
        found, wanted_cosines = (
            each - each.mean(1, keepdim=True) for each in (found, wanted_cosines)
        )
        apart = (found - wanted_cosines).square().mean()
        order = _cosines(found, wanted_cosines).mean()
        loss = 2 - of_documents - of_queries + _DIFFERENCES_WEIGHT * apart
        means = (of_documents, of_queries, order)
        return loss, Agreement(*(round(each.item(), 4) for each in means))

    @torch.no_grad()
    def _vectors(self, texts: Sequence[Sequence[int]]) -> Tensor:
        token_ids, last = _padded(texts)
        states: Tensor = self._embedder(input_ids=token_ids, use_cache=False).last_hidden_state
        return states[torch.arange(len(last)), last]


def _padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids, (n, t), padded where causal attention does not look, and each end's place."""
    length = max(map(len, texts))
    rows = [[*each, *[0] * (length - len(each))] for each in texts]
    return torch.tensor(rows), torch.tensor([len(each) - 1 for each in texts])


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    return functional.cosine_similarity(left, right, dim=1)
