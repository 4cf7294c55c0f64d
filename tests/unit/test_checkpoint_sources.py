"""From the spelling of a source to a folder, or to a sentence that says what to write instead."""

import math
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from embedfleet.catalog import published
from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.checkpoint import sources as sources_module
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.config import Settings
from embedfleet.embedded.recipe.shapes import SHAPES
from embedfleet.errors import CheckpointError
from embedfleet.messages import Role

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, name: str, commit: str) -> Path:
    """Lay a download out as the hub's client keeps it."""
    folder = cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


ASK = """
import runpy, sys
from embedfleet.errors import CheckpointError
resolve = runpy.run_path(sys.argv[1])["resolve"]
for source in sys.argv[2:]:
    name, _, revision = source.partition("@")
    try:
        print(resolve(name, revision))
    except CheckpointError as error:
        print(error.message)
"""


def asked(cache: Path, *sources: str, **environment: str) -> list[str]:
    """Resolve in another process: the hub's client reads its environment once.

    The module runs as a file, since its package would load a tensor library for nothing.
    """
    told = {**Settings.load().environment, "HF_HUB_CACHE": str(cache), **environment}
    command = [sys.executable, "-c", ASK, sources_module.__file__, *sources]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("role", list(Role))
def test_embedded_models_come_with_the_package(role):
    checkpoint = open_checkpoint(resolve(f"embedded/{role}"), role)
    parameters = sum(map(math.prod, expected_tensors(SHAPES[role], role).values()))
    assert checkpoint.weights_bytes == 2 * parameters
    assert checkpoint.load_tokenizer().special_tokens


def test_local_folder_and_file_address(tmp_path, monkeypatch):
    folder = tmp_path / "with space"
    folder.mkdir()
    address = "file://" + str(folder).replace(" ", "%20")
    assert resolve(str(folder)) == resolve(address) == folder.resolve()
    monkeypatch.chdir(tmp_path)
    assert resolve("./with space") == folder.resolve()


def test_offline_what_is_in_the_cache_is_found_and_nobody_asked_for_the_rest(tmp_path):
    name = "Qwen/Qwen3-Embedding-0.6B"
    pinned = cached(tmp_path, "me/mine", COMMIT)
    known = cached(tmp_path, name, published(name).revision)
    sources = (f"me/mine@{COMMIT}", name, f"me/other@{COMMIT}")
    *found, refused = asked(tmp_path, *sources, HF_HUB_OFFLINE="1")
    assert found == [str(pinned), str(known)]  # the catalog pins the second
    assert "HF_HUB_OFFLINE is set, so nobody was asked" in refused
    assert str(tmp_path) in refused


@pytest.mark.parametrize(
    ("source", "revision", "why"),
    [
        ("embedded/nothing", "", "embedded/embedder, embedded/reranker"),
        ("embedded/embedder", COMMIT, "has no revisions"),
        ("/no/such/folder", "", "is not a folder"),
        ("./nowhere", "", "is not a folder"),
        ("nonsense", "", "hub name such as"),
        ("file:///no/such/folder", "", "is not a folder"),
        ("file://host/folder", "", "file:///folder"),
        ("file:relative", "", "file:///folder"),
        ("me/mine", "", "revision unset"),
        ("me/mine", "main", "revision main"),
        ("me/mine", COMMIT[:12], "40 hexadecimal digits"),
        ("Qwen/Qwen3-Reranker-0.6B", "", "revision unset"),  # none is pinned by the catalog
    ],
)
def test_refusals_say_what_to_write(source, revision, why):
    with pytest.raises(CheckpointError) as caught:
        resolve(source, revision)
    assert why in caught.value.message


class Empty(BaseHTTPRequestHandler):
    """A hub that has nothing."""

    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_a_hub_that_refuses_is_quoted(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        told = asked(tmp_path, f"me/mine@{COMMIT}", HF_ENDPOINT=mirror, HF_HUB_OFFLINE="0")
        server.shutdown()
    said = " ".join(told)
    for part in ("me/mine", COMMIT, str(tmp_path), "404", "local folder"):
        assert part in said
