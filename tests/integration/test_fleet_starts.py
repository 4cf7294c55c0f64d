"""Starts that fail, and fleets on a Ray cluster that somebody else runs."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from embedfleet.client import Client
from embedfleet.config import Settings
from embedfleet.errors import InvalidManifest, InvalidRequest, Unavailable
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.node import MARK, node_environment, processes_of, start_node, stop_all
from embedfleet.local.ports import choose_ports
from embedfleet.serve_rest import ServeRest
from embedfleet.resources import Manifests, parse_manifests

TOKEN = "t" * 64
CLUSTER = "cluster-of-somebody"


def fleet_of(name: str, source: str) -> Manifests:
    documents = [
        {"kind": "Fleet", "metadata": {"name": name}, "spec": {}},
        {
            "kind": "Embedder",
            "metadata": {"name": "docs"},
            "spec": {"model": {"source": source}, "placement": {"cpus": 0.5}},
        },
    ]
    return parse_manifests(
        yaml.safe_dump_all({"apiVersion": "embedfleet.io/v1alpha1", **each} for each in documents)
    )


def how(home: Path, **options: str) -> Up:
    return Up(home, Settings.load().environment, port=0, num_cpus=2, **options)


def test_nothing_is_left_of_a_fleet_that_could_not_start(tmp_path):
    home, missing, told = tmp_path / "home", tmp_path / "missing", []
    with pytest.raises(Unavailable, match=str(missing)):
        bring_up(fleet_of("broken", str(missing)), how(home), told.append)
    assert list(home.iterdir()) == []
    (kept,) = [Path(line.rpartition(" ")[2]) for line in told if "logs are kept" in line]
    assert (kept / "ray.log").stat().st_size
    shutil.rmtree(kept)


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """The dashboard of a cluster that is not a fleet's, with the flags that fleets need."""
    ports, folder = choose_ports(), Path(tempfile.mkdtemp(prefix="ef-"))
    marks = {MARK: CLUSTER, "RAY_AUTH_TOKEN": TOKEN}
    environment = node_environment({**Settings.load().environment, **marks}, ports, folder)
    start_node(environment, ports, folder, 2)
    yield f"http://127.0.0.1:{ports.dashboard}"
    stop_all(CLUSTER)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_fleet_on_a_cluster_that_runs_already(ray, tmp_path):
    guest = fleet_of("guest", "embedded/embedder")
    state = bring_up(guest, how(tmp_path, dashboard=ray, token=TOKEN), lambda line: None)
    with Client(state.endpoint) as client:
        assert len(client.embed_documents("docs", ["a"]).vectors) == 1
    # Another fleet's configuration would delete the first one's models.
    other = fleet_of("other", "embedded/embedder")
    with pytest.raises(InvalidManifest, match="serves emb-docs, router"):
        bring_up(other, how(tmp_path, dashboard=ray, token=TOKEN), lambda line: None)
    with Client(state.endpoint) as client:
        assert len(client.embed_documents("docs", ["a"]).vectors) == 1
    take_down(state, tmp_path)
    assert not processes_of(state.fleet_id)
    # The cluster is its owner's: it runs on, without the fleet.
    with ServeRest(ray, TOKEN) as serve:
        deadline = time.monotonic() + 60
        while serve.get()["applications"]:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_a_wrong_token_is_told(ray, tmp_path):
    with pytest.raises(InvalidRequest, match="refuses the token"):
        bring_up(
            fleet_of("guest", "embedded/embedder"),
            how(tmp_path, dashboard=ray, token="x" * 64),
            lambda line: None,
        )
