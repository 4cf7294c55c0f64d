"""Which differences are stated, how sure they are over several datasets, and the report's form."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedfleet.cli.evaluation_tables import print_report
from embedfleet.errors import Unsupported
from embedfleet.evaluation.beir import RetrievalDataset
from embedfleet.evaluation.comparing import MEAN, Difference, compare, pairs
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.measures import MEASURES
from embedfleet.evaluation.plotting import plot
from embedfleet.evaluation.report import FORMAT, Asked, report
from embedfleet.evaluation.results import Cost, Kind, Results, System
from embedfleet.evaluation.settings import Settings
from embedfleet.evaluation.similarity import SPEARMAN, Pairs

BM25 = System("bm25", Kind.BM25, "bm25")
MERGED = System("merged", Kind.EMBEDDER, "merged", 64, "FLOAT32", 256, engine="cpu float32")
SMALL = System("merged@32 INT8", Kind.EMBEDDER, "merged", 32, "INT8", 36, variant_of="merged")
BARE = System(
    "merged without instruction", Kind.EMBEDDER, "merged", 64, "FLOAT32", 256, False, "", "merged"
)
SINGLE = System("single", Kind.EMBEDDER, "single", 64, "FLOAT32", 256, engine="cpu float32")
SECOND = System(
    "merged > judge", Kind.RERANKER, "judge", first_stage="merged", engine="cpu float32"
)
SYSTEMS = (BM25, MERGED, SMALL, BARE, SINGLE, SECOND)


def results(
    sizes: dict[str, int], shifts: dict[str, float], systems: tuple[System, ...] = SYSTEMS
) -> Results:
    """Draw values of which each system's are shifted by so much."""
    random = np.random.default_rng(11)
    datasets = tuple(
        RetrievalDataset(
            name, "test", ("d",), ("d",), ("q",) * size, ("q",) * size, {"q": {"d": 1}}
        )
        for name, size in sizes.items()
    )
    found = Results(datasets)
    for dataset in datasets:
        hard = random.random((len(dataset.queries), 1))
        for system in systems:
            noise = random.normal(0, 0.1, (len(dataset.queries), len(MEASURES)))
            found.systems[system.name] = system
            values = hard + noise + shifts.get(system.name, 0.0)
            found.values[dataset.name, system.name] = values
            found.costs[dataset.name, system.name] = Cost(1000, 2.0, 50_000, 3)
    return found


def the(differences: tuple[Difference, ...], *key: str) -> Difference:
    (found,) = (
        each
        for each in differences
        if (each.system, each.against, each.dataset, each.measure) == key
    )
    return found


def test_what_is_compared_with_what() -> None:
    assert pairs(results({"a": 5}, {}), "bm25") == [
        ("merged", "bm25"),
        ("single", "bm25"),
        ("merged > judge", "merged"),
        ("merged > judge", "bm25"),
        ("single", "merged"),
        ("merged@32 INT8", "merged"),
        ("merged", "merged without instruction"),
    ]


def test_another_baseline_is_compared_with_beside_bm25() -> None:
    found = pairs(results({"a": 5}, {}), "single")
    assert ("merged", "single") in found
    assert ("merged > judge", "single") in found
    assert ("single", "bm25") in found
    assert ("single", "single") not in found


def test_a_shift_is_shown_and_no_shift_is_not() -> None:
    found = compare(results({"a": 200}, {"merged": 0.1}), "bm25", num_resamples=2_000)
    shown = the(found.differences, "merged", "bm25", "a", "ndcg@10").difference
    assert shown.excludes_zero
    assert shown.value == pytest.approx(0.1, abs=0.03)
    assert not the(found.differences, "single", "bm25", "a", "ndcg@10").difference.excludes_zero


def test_a_mean_weighs_datasets_equally_and_draws_within_each() -> None:
    measured = results({"small": 40, "large": 400}, {"merged": 0.1})
    found = compare(measured, "bm25", num_resamples=20_000)
    parts = [
        measured.values[name, "merged"][:, 0] - measured.values[name, "bm25"][:, 0]
        for name in ("small", "large")
    ]
    apart = the(found.differences, "merged", "bm25", MEAN, "ndcg@10").difference
    assert apart.value == pytest.approx(np.mean([part.mean() for part in parts]))
    # The mean of two independent means has a quarter of the sum of their variances.
    spread = np.sqrt(sum(part.var() / len(part) for part in parts)) / 2
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * spread, rel=0.05)


def test_one_dataset_has_no_mean() -> None:
    found = compare(results({"a": 9}, {}), "bm25", num_resamples=100)
    assert {dataset for _, dataset, _ in found.values} == {"a"}


def test_similarity_is_compared_like_retrieval() -> None:
    measured = results({"a": 9}, {})
    scores = np.arange(60.0)
    measured.pairs = (Pairs("sts", ("x",) * 60, ("y",) * 60, scores),)
    noise = np.random.default_rng(0).normal(size=60)
    measured.add_cosines(measured.pairs[0], MERGED, scores)
    measured.add_cosines(measured.pairs[0], SMALL, scores + 40 * noise)
    found = compare(measured, "bm25", num_resamples=500)
    assert found.values["merged", "sts", SPEARMAN].value == pytest.approx(1)
    loss = the(found.differences, "merged@32 INT8", "merged", "sts", SPEARMAN).difference
    assert loss.excludes_zero
    assert loss.value < 0


def made(sizes: dict[str, int]) -> dict[str, Any]:
    measured = results(sizes, {"merged": 0.2, "merged > judge": 0.3})
    measured.pairs = (Pairs("sts", ("x",) * 9, ("y",) * 9, np.arange(9.0)),)
    measured.add_cosines(measured.pairs[0], MERGED, np.arange(9.0))
    asked = Asked(Settings(), {"merged": "/models/merged"})
    mteb = [
        {"model": "merged", "task": "T", "type": "STS", "split": "test", "subset": "default",
         "measure": "cosine_spearman", "value": 0.5}
    ]  # fmt: skip
    return report(asked, measured, compare(measured, "bm25", num_resamples=200), mteb)


def test_the_report_is_json_of_the_documented_form() -> None:
    found = json.loads(json.dumps(made({"a": 30, "b": 20}), allow_nan=False))
    assert found["format"] == FORMAT == "embedfleet.evaluation/v1"
    assert set(found) == {
        "format", "createdAt", "settings", "datasets", "systems", "pairs", "mteb", "differences",
    }  # fmt: skip
    bm25, merged, small, bare, _, second = found["systems"]
    assert set(bm25) == {
        "name",
        "kind",
        "model",
        "documentsPerSecond",
        "tokensPerSecond",
        "quality",
    }
    assert merged["source"] == "/models/merged"
    assert (small["dimension"], small["outputType"], small["bytesPerVector"]) == (32, "INT8", 36)
    assert (small["variantOf"], bare["instruction"]) == ("merged", False)
    assert (second["firstStage"], second["pairsPerSecond"]) == ("merged", 500)
    assert (merged["documentsPerSecond"], merged["numTruncated"]) == (500, 6)
    assert set(merged["quality"]) == {"a", "b", "mean", "sts"}
    assert set(merged["quality"]["mean"]) == set(MEASURES)
    assert set(merged["quality"]["sts"]["spearman"]) == {"value", "low", "high"}
    assert {each["dataset"] for each in found["differences"]} == {"a", "b", "mean"}
    for each in found["differences"]:
        assert each["shown"] == (each["low"] > 0 or each["high"] < 0)
        assert each["shown"] != each["text"].startswith("no difference shown")


def test_tables_say_what_the_report_says(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(made({"a": 30, "b": 20}))
    said = capsys.readouterr().out
    for line in (
        "Quality on the mean of all data", "nDCG@10 by data, of whole systems",
        "Differences in nDCG@10, paired bootstrap", "Similarity on sts", "Tasks of mteb",
        "Baseline: BM25 (lucene, k1=1.5, b=0.75), English stop words",
        "merged: 6 documents cut to 8,192 tokens or the model's limit; ran on cpu float32.",
    ):  # fmt: skip
        assert line in said


@pytest.mark.parametrize("sizes", [{"a": 30}, {"a": 30, "b": 20}], ids=["one", "several"])
def test_the_picture_is_a_png_of_a_size_to_read(tmp_path: Path, sizes: dict[str, int]) -> None:
    file = tmp_path / "quality.png"
    plot(made(sizes), file)
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1440, 840)


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(Unsupported, match=r"needs no_such_package.*embedfleet\[evaluate\]"):
        needed("no_such_package.part")
