"""A bag of weighted token vectors, trained on pairs: what the models know before their layers do.

A text is the weighted mean of its tokens' vectors. That costs a thousandth of a transformer, so
the vocabulary learns from every pair many times; the layers that come on top start from it. Token
vectors begin as a teacher's for the token's spelling, and weights as smooth inverse frequencies
(Arora, Liang, Ma 2017). Where the teacher has read a source, its texts are to be as like each other
as it finds them, which says more than that one of a thousand documents answers a query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from embedfleet.messages import TokenIds

__all__ = ["IMPORTANCE_GAIN", "Bag", "BagTraining", "Texts", "first_bag", "train_bag"]

IMPORTANCE_GAIN: Final = 6.0
"""Largest logit that a token's importance gives it among the tokens of a text."""

_DIMENSIONS: Final[Mapping[int | None, float]] = {None: 1.0, 64: 0.5, 32: 0.3}
_MAX_TOKENS: Final = 96
_NEVER: Final = 1e4
"""Taken from the logit of what is left out."""


@dataclass(slots=True)
class Bag:
    """Token vectors and how much each token counts.

    Attributes:
        content: (vocab, width).
        importance: (vocab,).
    """

    content: Tensor
    importance: Tensor

    def vectors(self, texts: Sequence[TokenIds]) -> Tensor:
        """Compute the weighted mean of each text's tokens: (n, width).

        The scale of a token's row, importance and a constant one included, is divided out, as the
        norm in front of a layer does.
        """
        rest = torch.stack([self.importance, torch.ones_like(self.importance)], dim=1)
        rows = torch.cat([self.content, rest], dim=1)
        unit = rows / rows.square().mean(1, keepdim=True).sqrt()
        logits = IMPORTANCE_GAIN * self.importance / (1 + self.importance.square()).sqrt()
        weights = logits.exp()
        lengths = np.array([len(text) for text in texts])
        offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
        tokens = torch.from_numpy(np.concatenate(texts).astype(np.int64))
        weighted = unit[:, : self.content.shape[1]] * weights[:, None]
        summed = functional.embedding_bag(tokens, weighted, offsets, mode="sum")
        return summed / functional.embedding_bag(tokens, weights[:, None], offsets, mode="sum")


@dataclass(frozen=True, slots=True)
class Texts:
    """Queries of a source and the documents that answer them, n of both.

    Attributes:
        taught: A teacher's vectors of the queries and of the documents, each (n, d) of unit length.
    """

    queries: Sequence[TokenIds]
    documents: Sequence[TokenIds]
    taught: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None


@dataclass(frozen=True, slots=True)
class BagTraining:
    """How a bag is trained."""

    steps: int = 800
    batch_size: int = 1024
    learning_rate: float = 5e-3
    temperature: float = 0.05
    seed: int = 0


def first_bag(teacher: npt.NDArray[np.float32], counts: npt.NDArray[np.int64], width: int) -> Bag:
    """Begin with a teacher's vectors, reduced to their principal components.

    Args:
        teacher: (vocab, d), rows of zeros where the teacher has nothing to say.
        counts: (vocab,): how often each token is in the texts.
        width: Components kept, most telling first.
    """
    known = np.flatnonzero(np.abs(teacher).sum(1))
    centred = teacher[known] - teacher[known].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    reduced = centred @ axes[:width].T
    generator = np.random.default_rng(0)
    content = 0.3 * generator.standard_normal((len(teacher), width)).astype(np.float32)
    content[known] = reduced / reduced.std()
    share = (counts + 1) / (counts + 1).sum()
    logits = np.log(1e-4 / (1e-4 + share))
    importance = 2 / IMPORTANCE_GAIN * (logits - logits.mean())
    return Bag(torch.from_numpy(content), torch.from_numpy(importance.astype(np.float32)))


def train_bag(bag: Bag, sources: Mapping[str, Texts], training: BagTraining) -> Bag:
    """Train at several dimensions, on batches of one source each.

    Args:
        bag: Where training starts.
        sources: By name. The others of a batch are what does not match, or, where a teacher has
            read them, match as much as it says.
        training: How.

    Returns:
        The trained bag.
    """
    trained = Bag(bag.content.clone().requires_grad_(), bag.importance.clone().requires_grad_())
    optimizer = torch.optim.Adam([trained.content, trained.importance], betas=(0.9, 0.99))
    generator = np.random.default_rng(training.seed)
    names = list(sources)
    sizes = np.sqrt([len(sources[name].queries) for name in names])
    for step in range(training.steps):
        texts = sources[names[generator.choice(len(names), p=sizes / sizes.sum())]]
        count = len(texts.queries)
        chosen = generator.choice(count, min(training.batch_size, count), replace=False)
        queries, documents = (
            trained.vectors([kind[i][:_MAX_TOKENS] for i in chosen])
            for kind in (texts.queries, texts.documents)
        )
        if texts.taught is None:
            loss = _answering(queries, documents, training.temperature)
        else:
            taught = np.concatenate([kind[chosen] for kind in texts.taught]).astype(np.float32)
            both = torch.cat([queries, documents])
            loss = _alike(both, torch.from_numpy(taught), training.temperature)
        decay = 0.5 + 0.5 * math.cos(math.pi * step / training.steps)
        optimizer.param_groups[0]["lr"] = training.learning_rate * min(1.0, step / 50) * decay
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return Bag(trained.content.detach(), trained.importance.detach())


def _answering(queries: Tensor, documents: Tensor, temperature: float) -> Tensor:
    """Return how surprising it is which document answers which query, and the other way round."""
    total = torch.zeros(())
    target = torch.arange(len(queries))
    for dimension, weight in _DIMENSIONS.items():
        left = functional.normalize(queries[:, :dimension], dim=-1)
        right = functional.normalize(documents[:, :dimension], dim=-1)
        scores = left @ right.T / temperature
        both = functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)
        total = total + weight * both / 2
    return total


def _alike(vectors: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return how surprising it is to which other texts a teacher finds each text alike."""
    itself = torch.eye(len(vectors)) * _NEVER
    wanted = (taught @ taught.T / temperature - itself).softmax(1)
    total = torch.zeros(())
    for dimension, weight in _DIMENSIONS.items():
        unit = functional.normalize(vectors[:, :dimension], dim=-1)
        found = (unit @ unit.T / temperature - itself).log_softmax(1)
        total = total - weight * (wanted * found).sum(1).mean()
    return total
