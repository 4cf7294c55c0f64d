"""The whole command on a small folder, with the embedded models; and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedfleet.checkpoint import resolve
from embedfleet.cli.main import run

WORDS = [f"{a}{b}" for a in ("bar", "cel", "dim", "fon", "gul") for b in ("ak", "et", "in", "os")]
MODEL, RERANKER = ("--model", "embedded/embedder"), ("--reranker", "embedded/reranker")
QUIETLY = ("--num-threads", "1", "--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write documents of random words, and queries that share some with one of them."""
    drawn, root = random.Random(3), tmp_path_factory.mktemp("data") / "words"
    (root / "qrels").mkdir(parents=True)
    documents = {f"d{n}": drawn.choices(WORDS, k=12) for n in range(40)}
    queries = {f"q{n}": drawn.choices(documents[f"d{n}"], k=4) for n in range(12)}
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = (json.dumps({"_id": key, "text": " ".join(words)}) for key, words in texts.items())
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(12))
    (root / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return root


def test_everything_at_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs.tsv"
    rows = [("barak celet", "barak celet dimin", 3), ("barak", "gulos", 0), ("fonin", "fonin", 5)]
    pairs.write_text(
        "text_a\ttext_b\tscore\n" + "".join(f"{a}\t{b}\t{score}\n" for a, b, score in rows)
    )
    arguments = (
        f"--model again=embedded/embedder --data {data} --data twice={data} --similarity {pairs} "
        "--dimensions 32,64 --output-types float32,binary --depth 5 --max-queries 8 "
        "--max-document-tokens 12 --ablate instruction "
        f"--json {tmp_path / 'r.json'} --plot {tmp_path / 'r.png'}"
    )
    code = run(["evaluate", *MODEL, *RERANKER, *QUIETLY, *arguments.split()])
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads((tmp_path / "r.json").read_text())
    names = [each["name"] for each in found["systems"]]
    one = ["embedder", "embedder@32", "embedder@32 BINARY", "embedder@64", "embedder@64 BINARY",
           "embedder without instruction"]  # fmt: skip
    other = [name.replace("embedder", "again") for name in one]
    staged = ["embedder > reranker", "again > reranker"]
    assert names == ["bm25", *one, *other, *staged]
    assert [each["numQueries"] for each in found["datasets"]] == [8, 8]
    whole = found["systems"][1]
    assert whole["numTruncated"] == 80  # twelve words and the final token, or more
    once, twice = (whole["quality"][name]["recall@10"]["value"] for name in ("words", "twice"))
    assert once == twice
    same = [
        each for each in found["differences"]
        if (each["system"], each["against"]) == ("again", "embedder")
    ]  # fmt: skip
    assert same
    assert not any(each["shown"] for each in same)
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert "embedder on words: nDCG@10" in said.err
    assert "Similarity on pairs" in said.out


def test_rerankers_alone_go_through_what_bm25_found(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *RERANKER, *QUIETLY, "--data", str(data), "--depth", "3"]) == 0
    assert "bm25 > reranker" in capsys.readouterr().out


def test_a_file_that_takes_no_more_costs_no_result(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--data {data} --dimensions 32 --json /dev/full --plot {tmp_path / 'r.png'}"
    assert run(["evaluate", *MODEL, *QUIETLY, *arguments.split()]) == 1
    found = capsys.readouterr()
    assert "Quality on words" in found.out
    assert "--json is /dev/full, which cannot be written: No space left on device." in found.err
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert [each.name for each in tmp_path.iterdir()] == ["r.png"]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A copy of the embedder whose layers give no numbers: no file of it tells."""
    folder = tmp_path / "damaged"
    shutil.copytree(resolve("embedded/embedder"), folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("down_proj.weight"):
            tensor.fill_(torch.nan)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_model_that_fails_costs_nothing_of_those_before_it(
    data: Path, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    arguments = f"--model {damaged} --data {data} --output-types float32 --json {report}"
    assert run(["evaluate", *MODEL, *RERANKER, *QUIETLY, *arguments.split()]) == 1
    found = capsys.readouterr()
    assert "Quality on words" in found.out
    assert "damaged failed, so no more was measured: embedding 0 of " in found.err
    assert "is not finite" in found.err
    names = [each["name"] for each in json.loads(report.read_text())["systems"]]
    assert names == ["bm25", "embedder", "embedder@32", "embedder@64", "embedder@128"]


def test_where_nothing_was_measured_only_the_failure_is_told(
    data: Path, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("text_a\ttext_b\tscore\nbarak\tgulos\t1\ncelet\tdimin\t2\n")
    arguments = f"--model {damaged} --similarity {pairs}"
    assert run(["evaluate", *QUIETLY, *arguments.split()]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("embedfleet: damaged failed, so no more was measured: ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([*MODEL], "Name data: --data FOLDER, --similarity FILE or --mteb TASK"),
        (["--data", "."], "Name a model with --model SOURCE"),
        ([*MODEL, "--data", ".", "--dimensions", "32,x"], "whole numbers between commas"),
        ([*MODEL, "--data", ".", "--output-types", "UINT8"], "'UINT8' is not evaluated"),
        ([*MODEL, "--data", ".", "--baseline", "other"], "choose from bm25, embedder"),
        ([*MODEL, *MODEL, "--data", "."], "Two systems are called 'embedder'"),
        (["--model", "bm25=x", "--data", "."], "Two systems are called 'bm25'"),
        (["--model", "=x", "--data", "."], "must be LABEL=SOURCE or SOURCE"),
        ([*RERANKER, "--similarity", "x.tsv"], "--reranker needs documents to order"),
        ([*RERANKER, "--data", ".", "--plot", "x.png"], "--plot shows retrieval"),
        (
            [*RERANKER, "--data", ".", "--similarity", "x.tsv"],
            "--similarity is for embedders: name",
        ),
        ([*RERANKER, "--data", ".", "--mteb", "STS12"], "--mteb is for embedders: name one with"),
        ([*RERANKER, "--data", ".", "--ablate", "instruction"], "--ablate is for embedders: name"),
        ([*RERANKER, "--data", ".", "--dimensions", "32"], "--dimensions is for embedders: name"),
        ([*MODEL, "--data", ".", "--json", "/no/such/x.json"], "there is no folder /no/such"),
        ([*MODEL, "--data", ".", "--json", "/proc/x.json"], "--json is /proc/x.json, which cannot"),
        ([*MODEL, "--data", ".", "--plot", "/proc/x.png"], "--plot is /proc/x.png, which cannot"),
        ([*MODEL, "--data", ".", "--depth", "0"], "--depth"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_wrong_usage_is_refused_at_once(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--dimensions", "4096"], "dimension is 4096"),
        (["--model", "other=no/such/folder"], "no/such/folder"),
        (["--reranker", "embedded/nobody"], "embedded/nobody"),
        (["--data", "no-such-folder"], "no-such-folder/corpus.jsonl cannot be read"),
        (["--split", "dev"], "split is dev"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    data: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *MODEL, "--data", str(data), *given]) == 1
    found = capsys.readouterr()
    assert said in found.err
    assert "nDCG@10" not in found.err


def test_a_name_of_data_is_taken_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", *MODEL, "--data", str(data), "--data", str(data)]) == 2
    assert "The name 'words' of data is taken" in capsys.readouterr().err
