"""The program of a ModelCache's Job, and `embedfleet fetch`: codes, last words, what survives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from model_servers import NO_LIMIT, Asked, read_folder, serving, sha256, web

from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.cli.main import run
from embedfleet.errors import CheckpointError
from embedfleet.fetching.__main__ import main
from embedfleet.fetching.marker import STAGING
from embedfleet.messages import Role
from embedfleet.rendering.cache import CacheReport, FetchResult
from embedfleet.rendering.replica import ReplicaArguments
from embedfleet.runtime.loading import load_model

FOLDER = resolve("embedded/embedder")
MODEL = read_folder(FOLDER)
DIGESTS = {name: sha256(content) for name, content in MODEL.items()}
WEIGHTS = "model.safetensors"
OTHER = "ab" * 32


def spec_text(url: str, **digests: Any) -> str:
    files = {**DIGESTS, **digests.pop("files", {})}
    source = {"http": {"address": f"{url}/models/x"}}
    return json.dumps({"source": source, "digests": {"files": files, **digests}})


def program(spec: str, folder: Path, report: Path) -> list[str]:
    return [
        sys.executable, "-m", "embedfleet.fetching", spec, str(folder), "--report", str(report),
    ]  # fmt: skip


def last_words(spec: str, folder: Path, report: Path) -> tuple[int, CacheReport]:
    """Run the program in this process and give its exit code and report."""
    with pytest.raises(SystemExit) as ended:
        main([spec, str(folder), "--report", str(report)], standalone_mode=False)
    found = CacheReport.of_text(report.read_text())
    assert found is not None
    assert isinstance(ended.value.code, int)
    return ended.value.code, found


def test_it_tells_what_the_status_needs(tmp_path: Path) -> None:
    with serving(web(MODEL)) as served:
        code, said = last_words(spec_text(served.url), tmp_path / "x", tmp_path / "report")
    assert (code, said.result) == (0, FetchResult.FETCHED)
    assert said.num_bytes == sum(map(len, MODEL.values()))
    assert said.weights_digest == open_checkpoint(FOLDER, Role.EMBEDDER).weights_digest
    assert said.tokenizer_digest == DIGESTS["tokenizer.json"]


def test_only_what_may_help_is_tried_again(tmp_path: Path) -> None:
    report = tmp_path / "report"
    with serving(web(MODEL)) as served:
        url = served.url
        for spec, result in (
            (spec_text(url, weights=OTHER), FetchResult.DIGEST_MISMATCH),
            (spec_text(url, files={"gone.txt": OTHER}), FetchResult.FETCH_FAILED),
            ("{}", FetchResult.FETCH_FAILED),
            (
                json.dumps({"source": {"gcs": {"bucket": "models", "prefix": "q",
                                               "credentialsSecretName": "s"}}}),
                FetchResult.SECRET_MISSING,
            ),
        ):  # fmt: skip
            code, said = last_words(spec, tmp_path / str(result), report)
            assert (code, said.result) == (2, result), said
            assert said.num_bytes == 0
    file = tmp_path / "a-file"
    file.write_text("")
    code, said = last_words(spec_text(url), file / "below", report)
    assert (code, said.result) == (1, FetchResult.FETCH_FAILED)
    assert "Look at the volume" in said.message


@pytest.mark.parametrize(
    "message", ["", "short", "x" * 5000, '"' * 5000, "ü€🦊" * 2000, "\n\0" * 3000]
)
def test_last_words_fit_where_they_are_put(message: str) -> None:
    report = CacheReport(
        result=FetchResult.FETCHED, message=message, num_bytes=2**53, revision="a" * 40,
        weights_digest="b" * 64, tokenizer_digest="c" * 64,
    )  # fmt: skip
    text = report.to_text()
    assert len(text.encode()) <= 4096
    read = CacheReport.of_text(text)
    assert read is not None
    assert read.model_copy(update={"message": ""}) == report.model_copy(update={"message": ""})
    kept = read.message.removesuffix("...")
    assert message.startswith(kept)
    assert kept == message or len(text.encode()) > 4000, "as much is kept as there is room for"


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last)", "{}", "[1]"])
def test_other_last_words_are_none(text: str) -> None:
    assert CacheReport.of_text(text) is None


def test_killed_in_the_middle_it_goes_on_from_there(tmp_path: Path) -> None:
    half = len(MODEL[WEIGHTS]) // 2

    def hold(asked: Asked, earlier: int) -> int:
        return half if asked.path.endswith(WEIGHTS) and earlier == 0 else NO_LIMIT

    folder, report = tmp_path / "x", tmp_path / "report"
    with serving(web(MODEL), cut=hold, hang=True) as served:
        command = program(spec_text(served.url), folder, report)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
            deadline = time.monotonic() + 120
            while not any(part.stat().st_size for part in (folder / STAGING).glob("*.part")):
                assert time.monotonic() < deadline, "nothing was fetched"
                time.sleep(0.05)
            first.kill()
        assert first.returncode == -9
        assert not report.exists()
        served.continued.set()
        with pytest.raises(CheckpointError, match="not fetched to the end"):
            load_model(arguments(folder), num_threads=1)
        code, _ = last_words(spec_text(served.url), folder, report)
        assert code == 0
        resumed = served.starts(WEIGHTS)[-1]
        assert 0 < resumed <= half, "only the rest was asked for"
    assert {name: (folder / name).read_bytes() for name in MODEL} == MODEL


def arguments(folder: Path, source: str = "someone/model") -> ReplicaArguments:
    return ReplicaArguments(
        name="docs", role=Role.EMBEDDER, source=source, revision="0" * 40, folder=str(folder),
        weights="float32", device="cpu",
    )  # fmt: skip


def test_what_was_fetched_is_served_without_a_network(tmp_path: Path) -> None:
    """The source names what it is; nobody is asked for it."""
    folder = tmp_path / "x"
    with serving(web(MODEL)) as served:
        last_words(spec_text(served.url), folder, tmp_path / "report")
    loaded = load_model(arguments(folder), num_threads=1)
    here = load_model(ReplicaArguments(
        name="docs", role=Role.EMBEDDER, source="embedded/embedder", weights="float32",
        device="cpu",
    ), num_threads=1)  # fmt: skip
    assert loaded.contract.source == "someone/model"
    assert loaded.contract.weights_digest == here.contract.weights_digest
    # Alone, a cache is what its digests say, wherever it lies.
    alone = arguments(folder, str(folder)).model_copy(update={"revision": ""})
    assert load_model(alone, num_threads=1).contract_hash == here.contract_hash


def test_a_volume_that_is_not_mounted_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="volume of the ModelCache is not mounted"):
        load_model(arguments(tmp_path / "gone"), num_threads=1)


def cache(name: str, source: str, more: str = "") -> str:
    return (
        "apiVersion: embedfleet.io/v1alpha1\nkind: ModelCache\n"
        f"metadata: {{name: {name}}}\nspec: {{source: {source}{more}}}\n---\n"
    )


def test_a_laptop_fetches_with_the_same_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(web(MODEL)) as served:
        file = tmp_path / "cache.yaml"
        digests = f", digests: {{files: {json.dumps(DIGESTS)}}}"
        web_cache = cache("weights", f"{{http: {{address: {served.url}/models/x}}}}", digests)
        file.write_text(web_cache + cache("other", "{path: {folder: /models/x}}"))
        fetch = ["fetch", "-f", str(file), "--to", str(tmp_path / "x")]
        assert run(fetch) == 1
        assert "found weights, other. Choose one with --cache" in capsys.readouterr().err
        assert run([*fetch, "--cache", "other"]) == 1
        assert "is read where it lies" in capsys.readouterr().err
        assert run([*fetch, "--cache", "weights"]) == 0
        said = capsys.readouterr().out
    assert f"serve it with  model: {{source: {tmp_path / 'x'}}}" in said
    assert DIGESTS["tokenizer.json"] in said
