"""Starts that fail, and fleets on a Ray cluster that somebody else runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray_cluster import TOKEN, ray_cluster

from embedfleet.client import Client
from embedfleet.config import Settings
from embedfleet.errors import InvalidManifest, InvalidRequest, Unavailable
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.node import processes_of
from embedfleet.resources import Manifests, parse_manifests
from embedfleet.serve_rest import ServeRest


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
    with ray_cluster() as cluster:
        yield cluster.dashboard


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
