"""What the command line says to wrong usage, and what it needs to say it."""

import os
import subprocess
import sys
from importlib.util import find_spec

import click
import pytest
from click.testing import CliRunner

from embedfleet.cli.inputs import texts_from
from embedfleet.cli.main import COMMANDS, cli, run
from embedfleet.cli.up import first_calls
from embedfleet.resources.fleet import Tls


def call(*arguments, stdin=b"", environment=None):
    """Run one command line; give its exit code, output and errors."""
    with CliRunner().isolation(input=stdin, env=environment) as (out, err, _):
        code = run(arguments)
        sys.stdout.flush()
        return code, out.getvalue().decode(), err.getvalue().decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embd"], "Did you mean 'embed'?"),
        (["xyzzy"], "--help"),
        (["embed", "hi", "--model", "docs"], "--query if they are asked for"),
        (["embed", "hi", "--query", "-f", __file__], "not both"),
        (["embed", "hi", "--query", "--output", "npy"], "--output-file vectors.npy"),
        (["embed", "hi", "--query", "--output-file", "vectors.txt"], "name it .npy or .jsonl"),
        (["embed", "hi", "--query", "--output-file", "v.npy", "--output-type", "int8"], "scales"),
        (["embed", "hi", "--query", "-f", "missing.txt"], "missing.txt"),
        (["embed", "hi", "--query", "--endpoint", "a:1", "--fleet", "b"], "not both"),
        (["embed", "hi", "--query", "--dimension", "many"], "'many' is not a valid integer"),
        (["rerank", "a document"], "--query"),
        (["rerank", "a document", "--query", "q", "--top-n", "0"], "x>=1"),
        (["tokenize", "hi", "-m", "docs"], "--rerank-query"),
        (["tokenize", "hi", "-m", "docs", "--query", "--rerank-query", "q"], "--rerank-query"),
        (["validate"], "--file"),
        (["up", "-f", "f.yaml", "--ray", "localhost"], "such as http://ray-head:8265"),
        (["plan", "-f", "f.yaml", "--namespace", "search"], "--kubernetes"),
        (["plan", "-f", "f.yaml", "--kubernetes", "--allow-contract-change"], "another resource"),
        (["models", "--frobnicate"], "--frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2_and_says_what_to_do(arguments, said, tmp_path):
    # An endpoint where nobody is: usage is judged before anything is called.
    environment = {"EMBEDFLEET_ENDPOINT": "127.0.0.1:1", "EMBEDFLEET_HOME": str(tmp_path)}
    code, out, err = call(*arguments, environment=environment)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models"], "No fleet runs on this machine"),
        (["models", "--fleet", "demo"], "No fleet runs on this machine"),
        (["down", "--fleet", "demo"], "embedfleet up -f PATH"),
        (["status"], "No fleet runs on this machine"),
        (["models", "--endpoint", "http://host:1"], "give host:port"),
        (["models", "--endpoint", "host:1", "--timeout", "-1"], "timeout_seconds is -1.0"),
        (["models", "--endpoint", "host:1", "--tls-cert", __file__], "needs both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_failure_is_one_clean_line(arguments, said, tmp_path):
    environment = {"EMBEDFLEET_HOME": str(tmp_path), "EMBEDFLEET_ENDPOINT": ""}
    code, out, err = call(*arguments, environment=environment)
    assert (code, out) == (1, "")
    assert err.startswith("embedfleet: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_points_at_commands_of_that_name(name):
    module, _, _ = COMMANDS[name].target.partition(":")
    assert find_spec(module), f"{name} has no module"
    command = cli.get_command(click.Context(cli), name)
    assert command.name == name


@pytest.mark.parametrize(
    ("option", "meant_for"),
    [
        ("fleet", ["embed", "rerank", "tokenize", "models", "golden", "status", "down"]),
        ("files", ["up", "plan", "apply", "validate", "fetch"]),
    ],
)
def test_an_option_means_the_same_everywhere(option, meant_for):
    helps = {
        name: found.help
        for name in COMMANDS
        for found in cli.get_command(click.Context(cli), name).params
        if found.name == option
    }
    assert sorted(helps) == sorted(meant_for)
    assert len(set(helps.values())) == 1


def test_help_imports_nothing_heavy():
    heavy = ("torch", "ray", "grpc", "numpy", "pydantic", "rich")
    script = (
        "import sys; from embedfleet.cli.main import run; code = run(['--help']); "
        f"sys.exit(code or sum(name in sys.modules for name in {heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_and_a_commands_own_help_say_the_same(name):
    summary, _, _ = cli.get_command(click.Context(cli), name).help.partition("\n\n")
    assert summary == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    command = cli.get_command(click.Context(cli), name)
    options = [option for option in command.params if isinstance(option, click.Option)]
    unexplained = [o.name for o in options if not o.help]
    assert unexplained == []


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.jsonl"])
def test_a_failed_run_leaves_the_file_that_was_there(name, tmp_path):
    target = tmp_path / name
    target.write_bytes(b"made yesterday")
    link = tmp_path / f"latest-{name}"
    link.symlink_to(name)
    for path in (target, link):
        code, _, _ = call(
            "embed", "hi", "-m", "docs", "--query", "--timeout", "0.2", "--output-file", str(path),
            environment={"EMBEDFLEET_ENDPOINT": "127.0.0.1:1"},
        )  # fmt: skip
        assert code == 1
        assert target.read_bytes() == b"made yesterday"
    assert sorted(tmp_path.iterdir()) == sorted([target, link])


def test_a_file_beside_which_nothing_can_be_written_is_wrong_usage(tmp_path):
    code, _, err = call(
        "embed", "hi", "-m", "docs", "--query", "--output-file", str(tmp_path / "no" / "v.npy"),
        environment={"EMBEDFLEET_ENDPOINT": "127.0.0.1:1"},
    )  # fmt: skip
    assert code == 2
    assert f"--output-file is {tmp_path / 'no' / 'v.npy'}" in "".join(err.split("\n"))
    assert "No such file" in err


def test_a_pipe_given_as_a_file_is_read_once():
    """As in `embedfleet embed -f <(zcat texts.gz)`."""
    read, write = os.pipe()
    os.write(write, b"one\ntwo\n")
    os.close(write)
    texts = texts_from([], f"/dev/fd/{read}", "text")
    assert (texts.total, list(texts.items)) == (None, ["one", "two"])
    os.close(read)


def test_the_lines_of_a_file_are_counted_before_they_are_read(tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"one\n\ntwo")
    texts = texts_from([], str(tmp_path / "texts.txt"), "text")
    assert (texts.total, list(texts.items)) == (3, ["one", "", "two"])


@pytest.mark.parametrize(
    ("files", "ours", "grpcurl"),
    [
        (None, "models", "-plaintext"),
        (("certificateFile", "privateKeyFile"), "models --tls-ca CA.pem", "-cacert CA.pem"),
        (
            ("certificateFile", "privateKeyFile", "clientCaFile"),
            "models --tls-ca CA.pem --tls-cert CERT.pem --tls-key KEY.pem",
            "-cacert CA.pem -cert CERT.pem -key KEY.pem",
        ),
    ],
)
def test_a_fleet_that_is_up_tells_how_it_is_called(files, ours, grpcurl):
    tls = None if files is None else Tls.model_validate(dict.fromkeys(files, "/x.pem"))
    said = first_calls("demo", "127.0.0.1:9000", tls).splitlines()
    assert said[0] == f"  embedfleet {ours}"
    assert said[2] == f"  grpcurl {grpcurl} 127.0.0.1:9000 list"
