"""`validate` names every problem of every file, and what is right."""

import sys

from click.testing import CliRunner

from embedfleet.cli.main import run

GOOD = """
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {name: laptop}
spec: {}
"""
OTHER_KINDS = """
---
apiVersion: embedfleet.io/v1alpha1
kind: Embedder
metadata: {name: docs}
spec: {model: {source: embedded/embedder}}
---
apiVersion: embedfleet.io/v1alpha1
kind: Reranker
metadata: {name: relevance}
spec: {model: {source: embedded/reranker}}
---
apiVersion: embedfleet.io/v1alpha1
kind: ModelRoute
metadata: {name: search}
spec: {targetKind: Embedder, rules: [{name: all, targets: [{model: docs}]}]}
---
apiVersion: embedfleet.io/v1alpha1
kind: ModelCache
metadata: {name: weights}
spec: {source: {hub: {name: Qwen/Qwen3-Embedding-0.6B}}}
"""
BAD = """
apiVersion: embedfleet.io/v1alpha1
kind: Fleet
metadata: {name: laptop}
spec: {grpc: {port: 70000}, colour: red}
"""


def validate(*arguments, stdin=b""):
    with CliRunner().isolation(input=stdin) as (out, err, _):
        code = run(["validate", *map(str, arguments)])
        sys.stdout.flush()
        return code, out.getvalue().decode(), err.getvalue().decode()


def test_what_is_right_is_named(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(GOOD)
    assert validate("-f", file) == (0, "Fleet/laptop: ok\n", "")


def test_every_kind_is_named(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(GOOD + OTHER_KINDS)
    code, out, err = validate("-f", file)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [
        "Embedder/docs: ok",
        "Fleet/laptop: ok",
        "ModelCache/weights: ok",
        "ModelRoute/search: ok",
        "Reranker/relevance: ok",
    ]


def test_stdin_is_a_file_too():
    assert validate("-f", "-", stdin=GOOD.encode())[0] == 0


def test_every_problem_is_a_line(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(BAD)
    code, out, err = validate("-f", file, "-f", tmp_path / "missing.yaml")
    lines = err.splitlines()
    assert (code, out) == (1, "")
    assert len(lines) == 4
    assert any("spec.grpc.port" in line and "70000" in line for line in lines)
    assert any("colour" in line for line in lines)
    assert any("missing.yaml" in line for line in lines)
    assert lines[-1] == "embedfleet: 3 problems found"
