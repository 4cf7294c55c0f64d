"""Evaluation gives what mteb gives, with sentence-transformers or with our engine inside it."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.checkpoint import resolve
from embedfleet.engine import EngineOptions
from embedfleet.errors import EngineError, FetchFailed
from embedfleet.evaluation.beir import read_dataset
from embedfleet.evaluation.evaluating import evaluate
from embedfleet.evaluation.instructions import SIMILARITY_INSTRUCTION, instruction_of
from embedfleet.evaluation.measures import MEASURES
from embedfleet.evaluation.mteb_model import MtebEmbedder
from embedfleet.evaluation.mteb_tasks import load_tasks, run_tasks
from embedfleet.evaluation.settings import Candidate, Data, Settings, Watch
from embedfleet.evaluation.similarity import read_pairs, spearman
from embedfleet.prompts import query_head

# When mteb wraps sentence-transformers, it uses a parameter and a method that warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The fill_missing parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension`:FutureWarning"),
]

OPTIONS = EngineOptions(device="cpu", dtype="float32", num_threads=1)
SOURCE = "embedded/embedder"
TOLERANCE = 1e-3
NAMES = {
    "ndcg@10": "ndcg_at_10", "mrr@10": "mrr_at_10", "recall@10": "recall_at_10",
    "recall@100": "recall_at_100",
}  # fmt: skip
WORDS = [
    f"{a}{b}" for a in ("river", "mill", "corn", "stone", "light") for b in ("", "s", "ing", "ed")
]


def metadata(kind: str, name: str, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        type=kind, name=name, main_score=main_score, description="Made for this test.",
        dataset={"path": "none", "revision": "none"}, reference=None, eval_splits=["test"],
        eval_langs=["eng-Latn"], date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
        category="t2t", modalities=["text"],
    )  # fmt: skip


class Words(AbsTaskRetrieval):
    """Documents of random words; queries share some with one of them."""

    metadata = metadata("Retrieval", "EmbedfleetWords", "ndcg_at_10")

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        drawn = random.Random(5)
        documents = {
            f"d{n}": (" ".join(drawn.choices(WORDS, k=2 * (n % 2))),
                      " ".join(drawn.choices(WORDS, k=drawn.choice((5, 12, 60)))))
            for n in range(150)
        }  # fmt: skip
        queries = {f"q{n}": " ".join(documents[f"d{n}"][1].split()[:4]) for n in range(40)}
        judged = {f"q{n}": {f"d{n}": 2, f"d{n + 40}": 1, f"d{n + 80}": 0} for n in range(40)}
        corpus = [
            {"id": key, "title": title, "text": text} for key, (title, text) in documents.items()
        ]
        split = {
            "corpus": Dataset.from_list(corpus),
            "queries": Dataset.from_list([{"id": k, "text": v} for k, v in queries.items()]),
            "relevant_docs": judged,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    def write(self, folder: Path) -> Path:
        """Write the same as a BEIR folder."""
        self.load_data()
        split = self.dataset["default"]["test"]
        (folder / "qrels").mkdir(parents=True)
        for name in ("corpus", "queries"):
            rows = [{"_id": row.pop("id"), **row} for row in split[name].to_list()]
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        lines = [
            f"{q}\t{d}\t{s}" for q, of in split["relevant_docs"].items() for d, s in of.items()
        ]
        header = "query-id\tcorpus-id\tscore"
        (folder / "qrels" / "test.tsv").write_text("\n".join([header, *lines]))
        return folder


class Alike(AbsTaskSTS):
    """Pairs of texts with more or fewer words in common."""

    metadata = metadata("STS", "EmbedfleetAlike", "cosine_spearman")

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        drawn = random.Random(6)
        rows = []
        for n in range(60):
            left, shared = drawn.choices(WORDS, k=8), n % 9
            right = left[:shared] + drawn.choices(WORDS, k=8 - shared)
            rows.append(
                {"sentence1": " ".join(left), "sentence2": " ".join(right), "score": shared}
            )
        self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
        self.data_loaded = True

    def write(self, file: Path) -> Path:
        """Write the same as a file of pairs."""
        self.load_data()
        rows = [
            {"text_a": row["sentence1"], "text_b": row["sentence2"], "score": row["score"]}
            for row in self.dataset["test"]
        ]
        file.write_text("\n".join(map(json.dumps, rows)))
        return file


class Broken(Alike):
    """Data without what its kind of task reads."""

    metadata = metadata("STS", "EmbedfleetBroken", "cosine_spearman")

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        self.dataset = DatasetDict({"test": Dataset.from_list([{"sentence1": "a"}])})
        self.data_loaded = True


class Absent(Alike):
    """Data that is out of reach."""

    metadata = metadata("STS", "EmbedfleetAbsent", "cosine_spearman")

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        raise ConnectionError("no route")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """Set the same weights up as the published models' card does."""
    folder = tmp_path_factory.mktemp("peer") / "model"
    shutil.copytree(resolve(SOURCE), folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>", "padding_side": "left", "model_max_length": 32_768,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    transformer = Transformer(str(folder), model_kwargs={"dtype": torch.float32})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    prompts = {
        "query": query_head(DEFAULT_INSTRUCTION), "document": "",
        "STS": query_head(SIMILARITY_INSTRUCTION),
    }  # fmt: skip
    return SentenceTransformer(
        modules=[transformer, pooling, Normalize()], device="cpu", prompts=prompts
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Measure the same data by our own path."""
    root = tmp_path_factory.mktemp("ours")
    dataset = read_dataset(Words().write(root / "words"))
    pairs = read_pairs(Alike().write(root / "alike.jsonl"))

    watch = Watch(lambda what, total: nullcontext(lambda done: None), lambda line: None)
    settings = Settings((32,), ("FLOAT32",), options=OPTIONS)
    return evaluate(Data((dataset,), (pairs,)), ((Candidate("m", SOURCE),), ()), settings, watch)


def scores(model: Any, task: Any) -> dict[str, float]:
    result = mteb.evaluate(
        model, task, cache=None, co2_tracker=False, show_progress_bar=False,
        encode_kwargs={"batch_size": 16},
    )  # fmt: skip
    return dict(result.task_results[0].scores["test"][0])


def test_retrieval_equals_mteb_with_sentence_transformers(
    peer: SentenceTransformer, ours: Any
) -> None:
    theirs = scores(peer, Words())
    found = dict(zip(MEASURES, ours.values["words", "m"].mean(axis=0), strict=True))
    assert 0.05 < theirs["ndcg_at_10"] < 0.98
    for measure, name in NAMES.items():
        assert found[measure] == pytest.approx(theirs[name], abs=TOLERANCE), measure


def test_similarity_equals_mteb_with_sentence_transformers(
    peer: SentenceTransformer, ours: Any
) -> None:
    theirs = scores(peer, Alike())
    found = spearman(ours.cosines["alike", "m"], ours.pairs[0].scores)
    assert 0.05 < theirs["cosine_spearman"] < 0.999
    assert found == pytest.approx(theirs["cosine_spearman"], abs=TOLERANCE)


def test_the_engine_inside_mteb_equals_both(peer: SentenceTransformer, ours: Any) -> None:
    scores_there = run_tasks(
        [Words(), Alike()], [Candidate("m", SOURCE)], Settings(options=OPTIONS)
    )
    assert scores_there.failure is None
    retrieval, similarity = scores_there.records
    assert (retrieval["measure"], similarity["measure"]) == ("ndcg_at_10", "cosine_spearman")
    ndcg = ours.values["words", "m"][:, 0].mean()
    assert retrieval["value"] == pytest.approx(ndcg, abs=TOLERANCE)
    assert similarity["value"] == pytest.approx(scores(peer, Alike())["main_score"], abs=TOLERANCE)


def test_what_was_measured_before_a_task_fails_is_kept() -> None:
    found = run_tasks([Alike(), Broken(), Words()], [Candidate("m", SOURCE)], Settings())
    assert [each["task"] for each in found.records] == ["EmbedfleetAlike"]
    assert isinstance(found.failure, EngineError)
    assert "mteb's task EmbedfleetBroken failed with m: " in found.failure.message


def test_data_that_cannot_be_loaded_is_told_by_the_name_of_its_task() -> None:
    with pytest.raises(FetchFailed, match="task EmbedfleetAbsent cannot be loaded: no route"):
        load_tasks([Alike(), Absent()])


def test_the_wrapper_is_an_encoder_of_mteb_and_instructs_queries_only() -> None:
    model = MtebEmbedder(SOURCE, options=OPTIONS)
    assert isinstance(model, mteb.EncoderProtocol)
    assert model.mteb_model_meta.name == SOURCE
    batches = [{"text": ["a river", "a mill"]}, {"text": ["corn"]}]
    texts = ["a river", "a mill", "corn"]
    given = {"hf_split": "test", "hf_subset": "default", "batch_size": 2}
    query, document = mteb.types.PromptType.query, mteb.types.PromptType.document
    embed = model.embedder.embed
    for task, kind, expected in (
        (Words, document, embed(texts, "DOCUMENT")),
        (Words, query, embed(texts, "QUERY")),
        (Alike, None, embed(texts, "QUERY", instruction=SIMILARITY_INSTRUCTION)),
    ):
        found = model.encode(batches, task_metadata=task.metadata, prompt_type=kind, **given)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(model.similarity(expected, expected)), 1, rtol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(expected, expected), 1, rtol=1e-5)
    model.close()


@pytest.mark.parametrize(
    ("kind", "own", "expected"),
    [
        ("Retrieval", None, DEFAULT_INSTRUCTION),
        ("Retrieval", "Find what refutes it", "Find what refutes it"),
        ("STS", "Retrieve semantically similar text.", "Retrieve semantically similar text"),
        ("PairClassification", None, "Retrieve semantically similar text"),
        ("BitextMining", "anything", "Retrieve parallel sentences"),
        ("A type of tomorrow", None, DEFAULT_INSTRUCTION),
    ],
)  # fmt: skip
def test_the_instruction_of_a_task(kind: str, own: str | None, expected: str) -> None:
    assert instruction_of(kind, own) == expected
