"""One pass over models and data: the baseline, every embedder, then every reranker.

Each model is loaded once. A corpus is embedded once, at the native dimension; other dimensions and
element types come from these vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from embedfleet import engine
from embedfleet.errors import EmbedfleetError
from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.encoding import (
    Encoded,
    SecondStage,
    embed_documents,
    embed_queries,
    rerank,
)
from embedfleet.evaluation.instructions import SIMILARITY_INSTRUCTION
from embedfleet.evaluation.lexical import BM25, Lexical
from embedfleet.evaluation.measures import DEPTH
from embedfleet.evaluation.ranking import Ranking
from embedfleet.evaluation.results import Cost, Kind, Results, System
from embedfleet.evaluation.settings import Candidate, Data, Settings, Watch
from embedfleet.evaluation.similarity import Pairs, cosines, spearman
from embedfleet.evaluation.variants import Index, Variant, stored, variants_of
from embedfleet.messages import Role

if TYPE_CHECKING:
    from embedfleet.engine import LocalEmbedder
    from embedfleet.engine.base import EngineInfo

__all__ = ["evaluate"]


class _Evaluation:
    def __init__(self, data: Data, settings: Settings, watch: Watch, first_stages: Kind) -> None:
        datasets = data.datasets
        self.results = Results(datasets, data.pairs)
        self._settings = settings
        self._watch = watch
        self._first_stages = first_stages
        self._engine = ""
        self._k = max(DEPTH, settings.depth)
        self._own = {dataset.name: dataset.own_documents() for dataset in datasets}
        # By dataset, then system: what second stages go through.
        self._first: dict[str, dict[str, Ranking]] = {each.name: {} for each in datasets}

    def baseline(self) -> None:
        for dataset in self.results.datasets:
            own = self._own[dataset.name]
            found = Lexical.search(dataset.documents, dataset.queries, self._k, own)
            count = len(dataset.documents)
            cost = Cost(count, count / found.documents_per_second)
            self._add(dataset, System(BM25, Kind.BM25, BM25), found.ranking, cost)

    def embedder(self, candidate: Candidate) -> None:
        with engine.load_embedder(candidate.source, options=self._settings.options) as embedder:
            native = embedder.engine.info.native_dimension
            self._engine = _engine(embedder.engine.info)
            variants = variants_of(native, self._settings.dimensions, self._settings.output_types)
            for dataset in self.results.datasets:
                documents = self._documents(embedder, candidate, dataset)
                queries = embed_queries(embedder, dataset.queries, self._settings.instruction)
                for variant in variants:
                    system = _system(candidate.label, variant, variants[0])
                    self._search(dataset, system, documents, queries)
                if self._settings.ablate_instruction:
                    bare = embed_queries(embedder, dataset.queries, None)
                    system = _system(candidate.label, variants[0], variants[0], instruction=False)
                    self._search(dataset, system, documents, bare)
            for pairs in self.results.pairs:
                self._similarity(embedder, candidate, pairs, variants)

    def reranker(self, candidate: Candidate) -> None:
        settings = self._settings
        stage = SecondStage(settings.depth, settings.instruction, settings.max_document_tokens)
        with engine.load_reranker(candidate.source, options=settings.options) as reranker:
            self._engine = _engine(reranker.engine.info)
            for dataset in self.results.datasets:
                for first, ranking in self._first[dataset.name].items():
                    system = System(
                        f"{first} > {candidate.label}",
                        Kind.RERANKER,
                        candidate.label,
                        first_stage=first,
                    )
                    what = f"{system.name} on {dataset.name}"
                    texts = (dataset.queries, dataset.documents)
                    with self._watch.progress(what, len(dataset.queries)) as advance:
                        found = rerank(reranker, texts, ranking, stage, advance)
                    cost = Cost(found.num_pairs, found.seconds, num_truncated=found.num_truncated)
                    self._add(dataset, system, found.ranking, cost)

    def _documents(
        self, embedder: LocalEmbedder, candidate: Candidate, dataset: RetrievalDataset
    ) -> Encoded:
        what = f"{candidate.label} on {dataset.name}"
        with self._watch.progress(what, len(dataset.documents)) as advance:
            return embed_documents(
                embedder, dataset.documents, self._settings.max_document_tokens, advance
            )

    def _search(
        self, dataset: RetrievalDataset, system: System, documents: Encoded, queries: Encoded
    ) -> None:
        variant = Variant(system.dimension or 0, system.output_type)
        index = Index.build(documents.vectors, variant)
        ranking = index.search(queries.vectors, self._k, self._own[dataset.name])
        cost = Cost(
            len(dataset.documents),
            documents.seconds,
            documents.num_tokens,
            documents.num_truncated,
        )
        self._add(dataset, replace(system, bytes_per_vector=index.bytes_per_vector), ranking, cost)

    def _similarity(
        self,
        embedder: LocalEmbedder,
        candidate: Candidate,
        pairs: Pairs,
        variants: Sequence[Variant],
    ) -> None:
        """Measure pairs with the instruction that the models were evaluated with."""
        left, right = (
            embed_queries(embedder, texts, SIMILARITY_INSTRUCTION).vectors
            for texts in (pairs.left, pairs.right)
        )
        for variant in variants:
            one, num_bytes = stored(left, variant)
            other, _ = stored(right, variant)
            system = _system(candidate.label, variant, variants[0])
            system = replace(system, bytes_per_vector=num_bytes, engine=self._engine)
            self.results.add_cosines(pairs, system, cosines(one, other))
        found = spearman(self.results.cosines[pairs.name, candidate.label], pairs.scores)
        self._watch.note(f"{candidate.label} on {pairs.name}: Spearman {100 * found:.1f}")

    def _add(self, dataset: RetrievalDataset, system: System, ranking: Ranking, cost: Cost) -> None:
        if system.kind is not Kind.BM25:
            system = replace(system, engine=self._engine)
        self.results.add(dataset, system, ranking, cost)
        if system.variant_of:
            return
        if system.kind is self._first_stages:
            self._first[dataset.name][system.name] = ranking
        what = "pairs" if system.kind is Kind.RERANKER else "documents"
        value = self.results.values[dataset.name, system.name][:, 0].mean()
        self._watch.note(
            f"{system.name} on {dataset.name}: nDCG@10 {100 * value:.1f}, {cost.count:,} {what} "
            f"in {cost.seconds:.1f} s"
        )


def evaluate(
    data: Data,
    models: tuple[tuple[Candidate, ...], tuple[Candidate, ...]],
    settings: Settings,
    watch: Watch,
) -> Results:
    """Measure BM25, embedders, and rerankers over each embedder's documents.

    Args:
        data: Datasets, pairs of texts for embedders, or both.
        models: Embedders and rerankers; labels differ. Without embedders, rerankers go through
            what BM25 found.
        settings: What is measured.
        watch: Who is told.

    Returns:
        What was measured, up to the first model that fails.

    Raises:
        EmbedfleetError: A model's files are not right, a dimension is none of a model's, or a model
            failed before anything was measured.
    """
    embedders, rerankers = models
    _check(embedders, rerankers, settings)
    running = _Evaluation(data, settings, watch, Kind.EMBEDDER if embedders else Kind.BM25)
    running.baseline()
    measures = [(running.embedder, each) for each in embedders if data.datasets or data.pairs]
    measures += [(running.reranker, each) for each in rerankers]
    for measure, candidate in measures:
        try:
            measure(candidate)
        # torch's own for memory that a device lacks is a RuntimeError.
        except (EmbedfleetError, RuntimeError, MemoryError) as failure:
            running.results.end(candidate.label, failure)
            break
    return running.results


def _check(
    embedders: Sequence[Candidate], rerankers: Sequence[Candidate], settings: Settings
) -> None:
    """Refuse what can be told beforehand, so that no hour of work ends in a wrong name."""
    # Here, because torch comes with it: wrong usage answers at once.
    from embedfleet.checkpoint import open_checkpoint, resolve

    for candidate in embedders:
        checkpoint = open_checkpoint(resolve(candidate.source), Role.EMBEDDER)
        variants_of(checkpoint.config.hidden_size, settings.dimensions, settings.output_types)
    for candidate in rerankers:
        open_checkpoint(resolve(candidate.source), Role.RERANKER)


def _engine(info: EngineInfo) -> str:
    return f"{info.device} {info.dtype}"


def _system(label: str, variant: Variant, full: Variant, instruction: bool = True) -> System:
    name = label
    if variant != full:
        kind = "" if variant.output_type == full.output_type else f" {variant.output_type}"
        name = f"{label}@{variant.dimension}{kind}"
    if not instruction:
        name = f"{label} without instruction"
    return System(
        name,
        Kind.EMBEDDER,
        label,
        variant.dimension,
        variant.output_type,
        instruction=instruction,
        variant_of=label if name != label else "",
    )
