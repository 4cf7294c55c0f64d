"""Which drafts become examples: no copies, no repeats, and only pairs that an embedder finds close.

The bound is that of arXiv 2506.05176, section 3: cosine over 0.7 by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from embedfleet.messages import Float32Array, InputType, Truncation
from embedfleet.tuning.synthesis.answers import Reason
from embedfleet.tuning.synthesis.settings import Instructions
from embedfleet.tuning.synthesis.steps import Draft, Rejection

if TYPE_CHECKING:
    # What loads a tensor library waits until there is something to compare.
    from embedfleet.engine.local import LocalEmbedder

__all__ = ["Advance", "Judged", "cosines", "keep_close", "without_repeats"]

Advance = Callable[[int], None]
"""Takes how many were finished since the last call."""

_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft with the cosine between query and passage."""

    draft: Draft
    cosine: float


def without_repeats(drafts: Iterable[Draft]) -> tuple[list[Draft], list[Rejection]]:
    """Take out queries that are their passage, or that were written before for the same task.

    Letter case and blanks make no difference. The first of several stays, in the order given.
    """
    kept: list[Draft] = []
    rejected: list[Rejection] = []
    seen: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        written = _normal(draft.query)
        if written == _normal(draft.draw.passage.text):
            rejected.append(_reject(draft, Reason.COPY, "the query is its passage"))
            continue
        first = seen.setdefault((draft.chosen.task, written), draft)
        if first is draft:
            kept.append(draft)
        else:
            said = f"the same query was written for passage {first.draw.passage.name}"
            rejected.append(_reject(draft, Reason.DUPLICATE, said))
    return kept, rejected


def cosines(
    drafts: Sequence[Draft], embedder: LocalEmbedder, instructions: Instructions, advance: Advance
) -> Float32Array:
    """Compare each query, under its task's instruction, with its passage: (n,).

    A text over the model's limit is cut at its end, as training would.

    Raises:
        InvalidRequest: A text that the embedder cannot take.
    """
    found = np.empty(len(drafts), np.float32)
    # A passage has several queries: the last chunk's vectors are still at hand.
    passages: dict[str, Float32Array] = {}
    for start in range(0, len(drafts), _CHUNK):
        chunk = drafts[start : start + _CHUNK]
        passages = _passage_vectors(chunk, embedder, passages)
        queries = _query_vectors(chunk, embedder, instructions)
        for place, draft in enumerate(chunk):
            found[start + place] = queries[place] @ passages[draft.draw.passage.name]
        advance(len(chunk))
    return found


def keep_close(
    drafts: Sequence[Draft], measured: Float32Array, min_cosine: float
) -> tuple[list[Judged], list[Rejection]]:
    """Keep the drafts whose cosine is above the bound."""
    kept: list[Judged] = []
    rejected: list[Rejection] = []
    for draft, each in zip(drafts, measured, strict=True):
        cosine = float(each)
        if cosine > min_cosine:
            kept.append(Judged(draft, cosine))
        else:
            said = f"the cosine is {cosine:.4f}, and filter.minCosine is {min_cosine:g}"
            rejected.append(_reject(draft, Reason.LOW_COSINE, said, cosine))
    return kept, rejected


def _passage_vectors(
    drafts: Sequence[Draft], embedder: LocalEmbedder, known: dict[str, Float32Array]
) -> dict[str, Float32Array]:
    texts = {each.draw.passage.name: each.draw.passage.text for each in drafts}
    found = {name: known[name] for name in texts if name in known}
    missing = [name for name in texts if name not in known]
    vectors = embedder.embed(
        [texts[name] for name in missing], InputType.DOCUMENT, truncation=Truncation.END
    )
    return found | dict(zip(missing, vectors, strict=True))


def _query_vectors(
    drafts: Sequence[Draft], embedder: LocalEmbedder, instructions: Instructions
) -> list[Float32Array]:
    by_place: dict[int, Float32Array] = {}
    for task in {each.chosen.task for each in drafts}:
        places = [place for place, each in enumerate(drafts) if each.chosen.task is task]
        vectors = embedder.embed(
            [drafts[place].query for place in places],
            InputType.QUERY,
            instruction=instructions.of(task),
            truncation=Truncation.END,
        )
        by_place |= dict(zip(places, vectors, strict=True))
    return [by_place[place] for place in range(len(drafts))]


def _reject(draft: Draft, reason: Reason, said: str, cosine: float | None = None) -> Rejection:
    return Rejection(draft.draw, reason, said, draft.chosen, draft.language, draft.query, cosine)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
