"""What was measured, query by query, before anything is said about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from embedfleet.errors import EmbedfleetError, EngineError
from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.measures import measure
from embedfleet.evaluation.ranking import Ranking
from embedfleet.evaluation.similarity import Pairs

__all__ = ["Cost", "Kind", "Results", "System"]


class Kind(StrEnum):
    """What a system is made of."""

    BM25 = "bm25"
    EMBEDDER = "embedder"
    RERANKER = "reranker"


@dataclass(frozen=True, slots=True)
class System:
    """One way to search.

    Attributes:
        name: Differs from that of every other system.
        model: Label that the user gave, or the baseline's name.
        dimension: Of an embedder's vectors; None for others.
        output_type: Element type of the stored vectors; empty for others.
        bytes_per_vector: What an index holds for a document; None for others.
        instruction: Whether queries carry one.
        first_stage: Name of the system whose documents a reranker orders anew.
        variant_of: Name of the same model's system at its native dimension in FLOAT32 and with
            instruction; empty for that one.
        engine: Device and type of the matrix products, which speed belongs to; empty for BM25.
    """

    name: str
    kind: Kind
    model: str
    dimension: int | None = None
    output_type: str = ""
    bytes_per_vector: int | None = None
    instruction: bool = True
    first_stage: str = ""
    variant_of: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a system did on one dataset.

    Attributes:
        count: Documents indexed, or pairs scored.
        seconds: Time for them, reading of files and search left out.
        num_tokens: Tokens of the documents; 0 where none are computed.
        num_truncated: Documents or pairs whose end was cut.
    """

    count: int
    seconds: float
    num_tokens: int = 0
    num_truncated: int = 0


@dataclass(slots=True)
class Results:
    """Every system's values on every dataset.

    Attributes:
        systems: In the order in which they were measured.
        values: By dataset and system name: (num_queries, num_measures).
        costs: By dataset and system name.
        cosines: Of each pair of texts, by name of the pairs and system name.
        failure: What ended it early, and with which model.
    """

    datasets: tuple[RetrievalDataset, ...]
    pairs: tuple[Pairs, ...] = ()
    systems: dict[str, System] = field(default_factory=dict)
    values: dict[tuple[str, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    cosines: dict[tuple[str, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    failure: EmbedfleetError | None = None

    def add(self, dataset: RetrievalDataset, system: System, ranking: Ranking, cost: Cost) -> None:
        """Measure a ranking and keep what came out."""
        self.systems[system.name] = system
        self.values[dataset.name, system.name] = measure(dataset, ranking)
        self.costs[dataset.name, system.name] = cost

    def add_cosines(self, pairs: Pairs, system: System, cosines: npt.NDArray[np.float64]) -> None:
        """Keep a system's cosines of pairs."""
        self.systems.setdefault(system.name, system)
        self.cosines[pairs.name, system.name] = cosines

    def end(self, model: str, failure: Exception) -> None:
        """Keep what a model failed with, and nothing that was measured of it: half is no mean.

        Raises:
            EngineError: Nothing else was measured.
        """
        said = str(failure) or type(failure).__name__
        self.failure = EngineError(f"{model} failed, so no more was measured: {said}")
        left = {name for name, system in self.systems.items() if system.model == model}
        for name in left:
            del self.systems[name]
        measured: tuple[dict[tuple[str, str], Any], ...] = (self.values, self.costs, self.cosines)
        for kept in measured:
            for key in [key for key in kept if key[1] in left]:
                del kept[key]
        if not self.systems:
            raise self.failure from failure

    def cost(self, system: str) -> Cost:
        """Add up a system's costs over all datasets."""
        parts = [cost for (_, name), cost in self.costs.items() if name == system]
        return Cost(
            sum(each.count for each in parts),
            sum(each.seconds for each in parts),
            sum(each.num_tokens for each in parts),
            sum(each.num_truncated for each in parts),
        )

    def of_kind(self, *kinds: Kind) -> Iterable[System]:
        """Give the systems of some kinds."""
        return [each for each in self.systems.values() if each.kind in kinds]
