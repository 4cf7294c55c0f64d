"""The report as JSON: what a user chooses by, and what a resource's status shows later.

    format         "embedfleet.evaluation/v1"; fields may be added, none changes its meaning
    createdAt      UTC, ISO 8601
    settings       what was asked for: split, depth, maxDocumentTokens, instruction, measures,
                   baseline, bm25, binary, confidence, resamples, seed
    datasets[]     name, numDocuments, numQueries, numWithoutText, numWithoutRelevant, numOwn
    systems[]      name, kind (bm25, embedder, reranker), model, source, and where they apply
                   dimension, outputType, bytesPerVector, instruction, firstStage, variantOf,
                   engine; documentsPerSecond or pairsPerSecond, tokensPerSecond, numTruncated;
                   quality: by name of dataset or pairs, and "mean" of several datasets: by measure:
                   value, low, high
    differences[]  system, against, dataset (or pairs, or "mean"), measure, value, low, high, shown,
                   text
    mteb[]         model, task, type, split, subset, measure, value: mteb's own scores, unbounded
    pairs[]        name, numPairs: files of scored pairs, measured by "spearman"

Values are fractions of one, with bounds of 95 % confidence. `shown` is false where the bounds of a
difference include zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from embedfleet.evaluation.bootstrap import CONFIDENCE, NUM_RESAMPLES, Interval
from embedfleet.evaluation.comparing import Compared, sentence
from embedfleet.evaluation.lexical import BM25, describe
from embedfleet.evaluation.measures import DEPTH, MEASURES
from embedfleet.evaluation.results import Kind, Results, System
from embedfleet.evaluation.settings import Settings
from embedfleet.evaluation.variants import OVERSAMPLING

__all__ = ["FORMAT", "Asked", "report"]

FORMAT: Final = "embedfleet.evaluation/v1"
_BINARY: Final = (
    "BINARY takes {} documents by Hamming distance, then orders them by the float query's product "
    "with the bits; BINARY+INT8 by its product with int8 components"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for, beside what was measured.

    Attributes:
        sources: Where each model came from, by label.
        baseline: Name of the system that others are compared with.
        seed: Of the bootstrap's draws.
    """

    settings: Settings
    sources: Mapping[str, str]
    baseline: str = BM25
    seed: int = 0


def report(
    asked: Asked,
    results: Results,
    compared: Compared,
    mteb: Sequence[Mapping[str, object]] = (),
) -> dict[str, Any]:
    """Build the report, ready for JSON; `mteb` are records of its tasks as they stand there."""
    return {
        "format": FORMAT,
        "createdAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": _settings(asked),
        "datasets": _datasets(results),
        "pairs": [{"name": each.name, "numPairs": len(each.scores)} for each in results.pairs],
        "systems": [
            _system(each, asked.sources, results, compared) for each in results.systems.values()
        ],
        "mteb": [dict(each) for each in mteb],
        "differences": [
            {
                "system": each.system,
                "against": each.against,
                "dataset": each.dataset,
                "measure": each.measure,
                **_bounds(each.difference),
                "shown": each.difference.excludes_zero,
                "text": sentence(each.difference),
            }
            for each in compared.differences
        ],
    }


def _settings(asked: Asked) -> dict[str, object]:
    settings = asked.settings
    return {
        "depth": settings.depth,
        "maxDocumentTokens": settings.max_document_tokens,
        "instruction": settings.instruction,
        "measures": list(MEASURES),
        "baseline": asked.baseline,
        "bm25": describe(),
        "binary": _BINARY.format(OVERSAMPLING * max(DEPTH, settings.depth)),
        "confidence": CONFIDENCE,
        "resamples": NUM_RESAMPLES,
        "seed": asked.seed,
    }


def _datasets(results: Results) -> list[dict[str, object]]:
    return [
        {
            "name": each.name,
            "split": each.split,
            "numDocuments": len(each.documents),
            "numQueries": len(each.queries),
            "numWithoutText": each.num_without_text,
            "numWithoutRelevant": each.num_without_relevant,
            "numOwn": sum(place >= 0 for place in each.own_documents()),
        }
        for each in results.datasets
    ]


def _system(
    system: System, sources: Mapping[str, str], results: Results, compared: Compared
) -> dict[str, object]:
    cost = results.cost(system.name)
    rate = cost.count / cost.seconds if cost.seconds > 0 else None
    tokens = cost.num_tokens / cost.seconds if cost.num_tokens and cost.seconds > 0 else None
    counted = "pairsPerSecond" if system.kind is Kind.RERANKER else "documentsPerSecond"
    facts = {
        "name": system.name,
        "kind": str(system.kind),
        "model": system.model,
        "source": sources.get(system.model),
        "dimension": system.dimension,
        "outputType": system.output_type or None,
        "bytesPerVector": system.bytes_per_vector,
        "instruction": None if system.kind is Kind.BM25 else system.instruction,
        "firstStage": system.first_stage or None,
        "variantOf": system.variant_of or None,
        "engine": system.engine or None,
        counted: rate,
        "tokensPerSecond": tokens,
        "numTruncated": None if system.kind is Kind.BM25 else cost.num_truncated,
    }
    quality: dict[str, dict[str, object]] = {}
    for (name, data, measure), found in compared.values.items():
        if name == system.name:
            quality.setdefault(data, {})[measure] = _bounds(found)
    return {**{key: value for key, value in facts.items() if value is not None}, "quality": quality}


def _bounds(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
