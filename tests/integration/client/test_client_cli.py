"""The command line against a real server: every output format, every input, failures."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner

from embedfleet.cli.main import run
from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2, reranking_pb2

DIMENSION = 4


def vector_of(text):
    return [float(len(text)), float(sum(map(ord, text))), 1.0, -1.0]


def embed(request, _context):
    """Texts 'bad' fail; the others get a vector that only they have."""
    embeddings = [
        embedding_pb2.Embedding(values=vector_of(item.text), num_tokens=len(item.text))
        if item.text != "bad"
        else embedding_pb2.Embedding(
            error=common_pb2.ItemError(
                code=3,
                reason="INVALID_REQUEST",
                field=f"items[{index}].text",
                message=f"items[{index}].text is bad.",
            )
        )
        for index, item in enumerate(request.items)
    ]
    return embedding_pb2.EmbedResponse(
        embeddings=embeddings,
        dimension=DIMENSION,
        output_type=common_pb2.FLOAT32,
        usage=common_pb2.Usage(input_tokens=sum(e.num_tokens for e in embeddings)),
        provenance=common_pb2.Provenance(model="docs", revision="r1", contract_hash="v1:abc"),
    )


def score(document, raw):
    probability = len(document) / 64
    return math.log(probability / (1 - probability)) if raw else probability


def rerank(request, _context):
    scored = sorted(enumerate(request.documents), key=lambda pair: -len(pair[1]))
    return reranking_pb2.RerankResponse(
        results=[
            reranking_pb2.RerankResult(index=index, score=score(document, request.raw_scores))
            for index, document in scored
        ]
    )


def tokenize(request, _context):
    return model_pb2.TokenizeResponse(
        texts=[model_pb2.TokenizedText(ids=[*text.encode(), 9]) for text in request.texts]
    )


def models(_request, _context):
    return model_pb2.ListModelsResponse(
        models=[
            model_pb2.Model(
                name="docs",
                aliases=["docs-small"],
                role=model_pb2.EMBEDDER,
                state=model_pb2.READY,
                source="Qwen/Qwen3-Embedding-0.6B",
                default_dimension=1024,
                max_tokens=32768,
                contract_hash="v1:abc",
            ),
            model_pb2.Model(
                name="relevance",
                role=model_pb2.RERANKER,
                state=model_pb2.NOT_READY,
                message="0 of 1 replicas started",
            ),
        ]
    )


@pytest.fixture
def endpoint(serve):
    return serve({"Embed": embed, "Rerank": rerank, "Tokenize": tokenize, "ListModels": models})


@pytest.fixture
def call(endpoint, tmp_path):
    def run_it(*arguments, stdin=b""):
        environment = {"EMBEDFLEET_ENDPOINT": endpoint, "EMBEDFLEET_HOME": str(tmp_path)}
        with CliRunner().isolation(input=stdin, env=environment) as (out, err, _):
            code = run([str(argument) for argument in arguments])
            sys.stdout.flush()
            return code, out.getvalue().decode(), err.getvalue().decode()

    return run_it


def test_a_table_shows_text_tokens_and_vector(call):
    code, out, err = call("embed", "--query", "[bold]hello", "a\nb")
    assert code == 0
    assert out.splitlines()[1].split() == [
        "0", "[bold]hello", "11", "[+11.0000,", "+1133.0000,", "+1.0000,", "-1.0000]",
    ]  # fmt: skip
    assert "2 vectors of 4, 14 tokens" in err
    assert "contract v1:abc" in err


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("texts.txt", b"one\ntwo\nthree", []),
        ("crlf.txt", b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n", []),
        ("texts.jsonl", b'{"text":"one"}\n{"text":"two","n":1}\n{"text":"three"}\n', []),
        ("body.jsonl", b'{"body":"one"}\n{"body":"two"}\n{"body":"three"}\n', ["--field", "body"]),
        (None, b"one\ntwo\nthree\n", []),
    ],
)
def test_json_lines_hold_every_vector_of_every_input(call, tmp_path, name, content, options):
    source = []
    if name:
        (tmp_path / name).write_bytes(content)
        source = ["-f", tmp_path / name]
    code, out, _ = call(
        "embed", "--document", "--output", "jsonl", *source, *options, stdin=content
    )
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"index": i, "embedding": vector_of(text), "num_tokens": len(text), "truncated": False}
        for i, text in enumerate(["one", "two", "three"])
    ]


def test_an_array_of_a_long_input_is_in_order(call, tmp_path):
    texts = [f"text {i}" for i in range(1000)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    target = tmp_path / "vectors.npy"
    code, out, _ = call(
        "embed", "--document", "-f", tmp_path / "texts.txt", "--output-file", target
    )
    assert (code, out) == (0, "")
    np.testing.assert_array_equal(np.load(target), [vector_of(text) for text in texts])


def test_a_failed_text_costs_only_itself(call):
    code, out, err = call("embed", "--document", "--output", "jsonl", "ok", "bad", "fine")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [list(record)[1] for record in records] == ["embedding", "error", "embedding"]
    assert records[1]["error"] == {"reason": "INVALID_REQUEST", "message": "items[1].text is bad."}
    assert "embedfleet: items[1].text is bad." in err
    assert "1 of 3 texts have no vector" in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"fine\n\xff\n", "line 2 is not UTF-8 at byte 0"),
        ("a.jsonl", b'{"text":"x"}\n{nope\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"body":"x"}\n', "no text in field 'text'; it has: body"),
        ("a.jsonl", b"[1]\n", "it has: list"),
        ("a.jsonl", b'{"text":5}\n', "no text in field 'text'"),
    ],
)
def test_a_broken_line_is_named_and_leaves_no_file(call, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    target = tmp_path / "vectors.npy"
    code, _, err = call("embed", "--document", "-f", tmp_path / name, "--output-file", target)
    assert code == 1
    assert said in err
    assert not target.exists()


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.jsonl"])
def test_a_file_is_replaced_when_it_is_whole_and_a_link_stays_one(call, tmp_path, name):
    (tmp_path / name).write_bytes(b"made yesterday")
    link = tmp_path / f"latest-{name}"
    link.symlink_to(name)
    assert call("embed", "--document", "one", "two", "--output-file", link)[0] == 0
    assert link.is_symlink()
    found = (
        np.load(tmp_path / name).tolist()
        if name.endswith("npy")
        else [json.loads(line)["embedding"] for line in (tmp_path / name).read_text().splitlines()]
    )
    assert found == [vector_of("one"), vector_of("two")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([link.name, name])


@pytest.mark.parametrize("output", ["npy", "jsonl"])
def test_a_pipe_takes_what_a_file_does(call, tmp_path, output):
    pipe = tmp_path / "vectors.pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        code, _, err = call(
            "embed", "--document", "one", "two", "--output", output, "--output-file", pipe
        )
        assert (code, pipe.is_fifo()) == (0, True), err
        expected = [vector_of("one"), vector_of("two")]
        if output == "npy":
            assert np.load(BytesIO(read.result())).tolist() == expected
        else:
            lines = read.result().splitlines()
            assert [json.loads(line)["embedding"] for line in lines] == expected


def test_a_pipe_outlives_a_failure(call, tmp_path):
    pipe = tmp_path / "vectors.jsonl"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        assert call("embed", "--document", "--output-file", pipe, stdin=b"\xff\n")[0] == 1
        assert (read.result(), pipe.is_fifo()) == (b"", True)


def test_an_empty_input_is_wrong_usage(call):
    code, _, err = call("embed", "--document", stdin=b"")
    assert code == 2
    assert "no text" in err


def test_documents_come_best_first(call):
    code, out, _ = call("rerank", "--query", "q", "short", "much longer", "longer")
    assert code == 0
    assert [line.rstrip().split(maxsplit=2) for line in out.splitlines()[1:]] == [
        ["0.1719", "1", "much longer"],
        ["0.0938", "2", "longer"],
        ["0.0781", "0", "short"],
    ]


def test_token_ids_are_shown(call):
    code, out, _ = call("tokenize", "-m", "docs", "--document", "hi", "--output", "jsonl")
    assert code == 0
    assert json.loads(out) == {"index": 0, "ids": [104, 105, 9], "truncated": False}


def test_models_say_why_they_are_not_ready(call):
    code, out, err = call("models")
    assert code == 0
    assert out.splitlines()[1].split() == [
        "docs,", "docs-small", "embedder", "ready", "Qwen/Qwen3-Embedding-0.6B", "1,024",
        "32,768", "v1:abc",
    ]  # fmt: skip
    assert "relevance is not ready: 0 of 1 replicas started" in err


def test_models_as_json_hold_everything(call):
    _, out, _ = call("models", "--output", "jsonl")
    first = json.loads(out.splitlines()[0])
    assert (first["name"], first["ready"], first["max_tokens"]) == ("docs", True, 32768)


def test_a_reader_that_leaves_is_no_failure_to_talk_about(endpoint):
    script = f"yes | head -3000 | {sys.executable} -m embedfleet embed --document --output jsonl"
    done = subprocess.run(
        ["bash", "-c", f"{script} --endpoint {endpoint} | head -1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["index"] == 0
    assert done.stderr == ""


def test_ctrl_c_ends_with_130_and_no_trace(serve, tmp_path):
    target = tmp_path / "vectors.npy"
    target.write_bytes(b"made yesterday")
    called, done = threading.Event(), threading.Event()

    def wait(_request, _context):
        called.set()
        done.wait(timeout=30)
        return embedding_pb2.EmbedResponse()

    endpoint = serve({"Embed": wait})
    command = [
        sys.executable, "-m", "embedfleet", "embed", "-m", "docs", "--query", "hi",
        "--output-file", str(target),
    ]  # fmt: skip
    # What runs in the background of a shell ignores Ctrl-C, and so would all that it starts.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *command, "--endpoint", endpoint],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert called.wait(timeout=30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    done.set()
    assert process.returncode == 130
    assert err.decode().strip() == "embedfleet: interrupted"
    assert target.read_bytes() == b"made yesterday"
    assert list(tmp_path.iterdir()) == [target]
