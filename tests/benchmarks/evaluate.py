"""Documents a second of a whole evaluation, against mteb with sentence-transformers.

Both sides embed corpus and queries, search, and measure every query; the corpus has mixed lengths.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mteb
import torch
from datasets import Dataset, disable_progress_bars
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from safetensors.torch import save_file
from support.arithmetic import lognormal_lengths
from support.machine import CORES
from support.peers import SentenceTransformersPeer, faster_type
from support.qwen_tokenizer import published
from support.report import (
    CELLS,
    Side,
    alternate,
    arguments,
    begin,
    by_core_time,
    conclude,
    note,
    paired,
    search,
    table,
)
from support.texts import Writer

from embedfleet.catalog import DEFAULT_INSTRUCTION, MAX_TOKENS
from embedfleet.checkpoint.config import read_config
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.engine import EngineOptions, load_embedder
from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.encoding import embed_documents, embed_queries
from embedfleet.evaluation.measures import DEPTH, measure
from embedfleet.evaluation.variants import Index, Variant
from embedfleet.messages import Role
from embedfleet.prompts import query_head

MEDIAN_TOKENS, P99_TOKENS = 60, 600
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
PARITY = 1e-3
OURS, PEER = "embedfleet", "mteb, sentence-transformers"
SHAPE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "dtype": "float32",
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1152,
    "vocab_size": 151_669,
    "max_position_embeddings": MAX_TOKENS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "padding_side": "left",
    "model_max_length": MAX_TOKENS,
    "clean_up_tokenization_spaces": False,
}


class Task(AbsTaskRetrieval):
    """The dataset as mteb takes it."""

    metadata = TaskMetadata(
        type="Retrieval", name="EmbedfleetMixedLengths", main_score="ndcg_at_10",
        description="Random words.", dataset={"path": "none", "revision": "none"}, reference=None,
        eval_splits=["test"], eval_langs=["eng-Latn"], date=None, domains=None, task_subtypes=None,
        license=None, annotations_creators=None, dialect=None, sample_creation=None,
        bibtex_citation=None, category="t2t", modalities=["text"],
    )  # fmt: skip
    source: RetrievalDataset

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        documents = zip(self.source.document_ids, self.source.documents, strict=True)
        queries = zip(self.source.query_ids, self.source.queries, strict=True)
        split = {
            "corpus": Dataset.from_list([{"id": i, "title": "", "text": t} for i, t in documents]),
            "queries": Dataset.from_list([{"id": i, "text": t} for i, t in queries]),
            "relevant_docs": {query: dict(of) for query, of in self.source.relevance.items()},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def checkpoint(folder: Path) -> Path:
    """Write a random model of the family's architecture and a small encoder's size."""
    (folder / "config.json").write_text(json.dumps(SHAPE))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer.json").write_bytes(published(Role.EMBEDDER))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=generator) * shape[1] ** -0.5
        for name, shape in expected_tensors(read_config(folder), Role.EMBEDDER).items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def dataset(num_documents: int, num_queries: int) -> RetrievalDataset:
    """Write documents of mixed lengths; a query is the start of one."""
    documents = Writer().texts(lognormal_lengths(num_documents, MEDIAN_TOKENS, P99_TOKENS))
    queries = [" ".join(text.split()[:6]) for text in documents[:num_queries]]
    ids = tuple(f"d{at}" for at in range(num_documents))
    asked = tuple(f"q{at}" for at in range(num_queries))
    relevance = {query: {ids[at]: 1} for at, query in enumerate(asked)}
    return RetrievalDataset(
        "mixed", "test", ids, tuple(documents), asked, tuple(queries), relevance
    )


class OwnSide:
    """Our evaluation of one dataset."""

    def __init__(self, folder: Path, data: RetrievalDataset, threads: int) -> None:
        self._embedder = load_embedder(folder, options=EngineOptions(num_threads=threads))
        self._data = data

    def run(self) -> float:
        """Return nDCG@10."""
        documents = embed_documents(self._embedder, self._data.documents).vectors
        queries = embed_queries(self._embedder, self._data.queries).vectors
        index = Index.build(documents, Variant(documents.shape[1]))
        ranking = index.search(queries, DEPTH, self._data.own_documents())
        return float(measure(self._data, ranking)[:, 0].mean())


class PeerSide:
    """mteb's evaluation of the same dataset."""

    def __init__(self, folder: Path, data: RetrievalDataset, threads: int) -> None:
        self._threads = threads
        some = data.documents[:64]
        dtype = faster_type(lambda kind: SentenceTransformersPeer(folder, kind), some)
        self.dtype = dtype
        self._model = SentenceTransformersPeer(folder, dtype)._model
        self._model.prompts = {"query": query_head(DEFAULT_INSTRUCTION), "document": ""}
        self._task = Task()
        self._task.source = data

    def run(self, batch_size: int) -> float:
        """Return nDCG@10."""
        torch.set_num_threads(self._threads)
        result = mteb.evaluate(
            self._model, self._task, cache=None, co2_tracker=False, show_progress_bar=False,
            encode_kwargs={"batch_size": batch_size, "show_progress_bar": False},
        )  # fmt: skip
        return float(result.task_results[0].scores["test"][0]["main_score"])


def main() -> None:
    given = arguments(__doc__, documents=200, queries=20, rounds=3, threads=CORES)
    disable_progress_bars()
    # mteb calls what sentence-transformers has renamed, once a run.
    warnings.filterwarnings("ignore", message=".*get_sentence_embedding_dimension")
    begin(
        "evaluate",
        f"documents/s of an evaluation: {given.documents} documents, log-normal lengths, median "
        f"{MEDIAN_TOKENS}, p99 {P99_TOKENS}, {given.queries} queries, 6 layers of 384, "
        f"threads a side: {given.threads}",
        "mteb with sentence-transformers on the same weights, its best batch size",
    )
    data = dataset(given.documents, given.queries)
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place))
        peer, own = PeerSide(folder, data, given.threads), OwnSide(folder, data, given.threads)
        best = search(PEER, peer.run, BATCH_SIZES, given.documents)
        values = own.run(), peer.run(best)
        note(f"nDCG@10: {values[0]:.5f} and {values[1]:.5f}, allowed {PARITY:.0e} apart")
        if not abs(values[0] - values[1]) < PARITY:
            raise SystemExit("The scores differ: no speed counts.")
        ours, theirs = Side(own.run), Side(lambda: peer.run(best))
        alternate({OURS: ours, PEER: theirs}, given.rounds)
    rows = [
        (OURS, given.documents / ours.seconds, "float32", "-", *ours.cells()),
        (PEER, given.documents / theirs.seconds, str(peer.dtype), str(best), *theirs.cells()),
    ]
    table(("side", "documents/s", "type", "batch size", *CELLS), rows)
    conclude("evaluate", paired(theirs, ours), "at least 1.3", by_core_time(theirs, ours))


if __name__ == "__main__":
    main()
