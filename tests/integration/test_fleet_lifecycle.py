"""A fleet's life on one machine: up, changed under traffic, hurt, down; beside another fleet.

The tests of `live` share one fleet and leave it as they found it; the last two end its life.
"""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from drifted import drifted
from fleet_calls import Caller, texts

from embedfleet.client import Client, ClientConfig
from embedfleet.config import Settings
from embedfleet.errors import InvalidManifest, Unavailable
from embedfleet.golden import measured
from embedfleet.local.changing import apply, plan_against
from embedfleet.local.fleet import Up, bring_up, take_down
from embedfleet.local.node import processes_of
from embedfleet.local.readiness import applications
from embedfleet.local.state import FleetState, list_states
from embedfleet.messages import Role
from embedfleet.rendering.plan import Impact
from embedfleet.rendering.serve import ServePorts, render_serve
from embedfleet.rendering.serve_state import summarize
from embedfleet.resources import parse_manifests
from embedfleet.serve_rest import ServeRest
from embedfleet_operator.reporting.verified import fingerprint

EMBED = "EmbeddingService/Embed"
WAIT_SECONDS = 120.0
EMBEDDED = resources.files("embedfleet.embedded")


def quiet(line):
    """Progress that nobody watches."""


def resource(kind, name, **spec):
    return {
        "apiVersion": "embedfleet.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def small(kind, name, source, **spec):
    # Room to replace a replica before it stops; half a core, so that all of them have one.
    rollout, placement = {"maxSurgePercent": 100}, {"cpus": 0.5}
    return resource(
        kind, name, model={"source": source}, rollout=rollout, placement=placement, **spec
    )


def fleet_of(name, *models):
    return parse_manifests(yaml.safe_dump_all([resource("Fleet", name), *models]))


DOCS = ("Embedder", "docs", "embedded/embedder")
RELEVANCE = small("Reranker", "relevance", "embedded/reranker")


class Live:
    """A fleet of its own, and what is needed to change it."""

    def __init__(self, state: FleetState, home: Path) -> None:
        self.state = state
        self.home = home

    def apply(self, *models, **options):
        return apply(self.manifests(*models), self.state, quiet, **options)

    def manifests(self, *models):
        return fleet_of(self.state.name, *models)

    def pids(self):
        return {app.name: app.pids for app in applications(self.state)}


def up(home, **options):
    return Up(home, Settings.load().environment, port=0, num_cpus=4, **options)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    home = Path(tempfile.mkdtemp(prefix="ef-test-"))
    state = bring_up(fleet_of("live", small(*DOCS), RELEVANCE), up(home), quiet)
    yield Live(state, home)
    take_down(state, home)
    shutil.rmtree(home)


class Traffic:
    """Constant calls by the SDK, one after the other, until it is left.

    Args:
        rest_seconds: Between two, where it is others that change: replicas that start need cores.
    """

    def __init__(self, endpoint: str, rest_seconds: float = 0.0) -> None:
        self._endpoint = endpoint
        self._rest_seconds = rest_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.failures: list[Exception] = []

    def _run(self) -> None:
        with Client(self._endpoint, config=ClientConfig(timeout_seconds=60)) as client:
            while not self._over.is_set():
                try:
                    assert len(client.embed_queries("docs", ["a", "b"])) == 2
                    assert len(client.rerank("relevance", "q", ["a", "b"]).results) == 2
                    self.answered += 1
                except Exception as error:
                    self.failures.append(error)
                self._over.wait(self._rest_seconds)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        wait_until(lambda: self.answered or self.failures, "no call was answered")
        return self

    def __exit__(self, *_: object) -> None:
        # What was changed must have had calls after it.
        done = self.answered
        wait_until(lambda: self.answered >= done + 3 or self.failures, "calls have stopped")
        self._over.set()
        self._thread.join()


def wait_until(ready, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def query_vector(live, **options):
    with Client(live.state.endpoint) as client:
        return client.embed_queries("docs", ["fox"], **options).vectors[0]


def test_a_fleet_that_runs_is_not_started_again(live):
    with pytest.raises(InvalidManifest, match=r"'live' runs already at .*embedfleet apply"):
        bring_up(live.manifests(small(*DOCS)), up(live.home), quiet)
    assert [state.name for state in list_states(live.home)] == ["live"]


def test_nothing_changes_where_nothing_differs(live):
    before = live.pids()
    assert live.apply(small(*DOCS), RELEVANCE).impact is Impact.NO_CHANGE
    assert live.pids() == before


def test_settings_reach_running_replicas(live):
    before, usual = live.pids(), query_vector(live)
    asked = query_vector(live, instruction="find animals")
    changed = small(*DOCS, instruction={"default": "find animals"}, dimension=64)
    assert plan_against(live.manifests(changed, RELEVANCE), live.state).impact is (
        Impact.RECONFIGURE
    )
    with Traffic(live.state.endpoint) as traffic:
        plan = live.apply(changed, RELEVANCE)
    assert traffic.failures == []
    assert (plan.of("Embedder/docs"), plan.of("Reranker/relevance")) == (
        Impact.RECONFIGURE, Impact.NO_CHANGE,
    )  # fmt: skip
    # Visible once apply returns, not some time after.
    expected = asked[:64] / np.linalg.norm(asked[:64])
    np.testing.assert_allclose(query_vector(live), expected, atol=1e-4)
    assert live.pids() == before
    live.apply(small(*DOCS), RELEVANCE)
    np.testing.assert_allclose(query_vector(live), usual, atol=1e-4)
    assert live.pids() == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dimension": 512}, "spec.dimension is 512: this checkpoint gives 32 to 256"),
        ({"allowedDimensions": [64, 512]}, "spec.allowedDimensions[1] is 512"),
        ({"allowedDimensions": [64]}, "must contain the default dimension, 256"),
    ],
)
def test_a_default_that_the_running_model_cannot_do_is_refused(live, spec, message):
    before = live.pids()
    changed = small(*DOCS, **spec)
    with pytest.raises(InvalidManifest) as planned:
        plan_against(live.manifests(changed, RELEVANCE), live.state)
    with pytest.raises(InvalidManifest) as refused:
        live.apply(changed, RELEVANCE)
    assert planned.value.message == refused.value.message
    assert refused.value.message.startswith("Nothing was changed: Embedder/docs: ")
    assert message in refused.value.message
    assert live.pids() == before
    assert len(query_vector(live)) == 256


def test_models_come_and_go(live, tmp_path):
    before = live.pids()
    broken = tmp_path / "broken"
    shutil.copytree(EMBEDDED / "embedder", broken)
    (broken / "model.safetensors").unlink()
    extra = small("Embedder", "extra", "embedded/embedder")
    with Traffic(live.state.endpoint, 0.05) as traffic, Caller(live.state.endpoint) as caller:
        assert live.apply(small(*DOCS), RELEVANCE, extra).of("Embedder/extra") is Impact.START
        assert len(caller.call(EMBED, texts("extra", "a")).embeddings[0].values) == 256

        damaged = small("Embedder", "damaged", str(broken))
        with pytest.raises(Unavailable, match=r"emb-damaged: .*model\.safetensors"):
            live.apply(small(*DOCS), RELEVANCE, extra, damaged)
        refused = caller.refusal(EMBED, texts("damaged", "a"))
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert len(caller.call(EMBED, texts("extra", "a")).embeddings[0].values) == 256

        plan = live.apply(small(*DOCS), RELEVANCE)
        assert plan.of("Embedder/extra") is Impact.REMOVE
        for gone in ("extra", "damaged"):
            refused = caller.refusal(EMBED, texts(gone, "a"))
            assert refused.code is grpc.StatusCode.NOT_FOUND
            assert "docs (embedder), relevance (reranker)" in refused.message
    assert traffic.failures == []
    assert live.pids() == before


def test_a_version_that_drifted_stays_out(live, tmp_path):
    folder = drifted(tmp_path / "drifted", Role.EMBEDDER, 0.3)
    good = live.manifests(small(*DOCS), RELEVANCE)
    other = live.manifests(small("Embedder", "docs", folder), RELEVANCE)
    numbers, before = live.state.ports, live.pids()
    ports = ServePorts(numbers.serve_grpc, numbers.serve_http, "127.0.0.1")

    def put(manifests, goldens, status):
        """Serve it until the embedder is what it is to be; gives what Serve says of that."""
        config = render_serve(manifests.only_fleet(), manifests.models, ports, goldens)
        with ServeRest(live.state.dashboard, live.state.token) as serve:
            serve.put(config)
            wait_until(lambda: found(serve)["status"] == status, f"emb-docs is not {status}")
            docs = found(serve)
        assert fingerprint(docs["deployed_app_config"]) == fingerprint(config["applications"][0])
        return summarize("emb-docs", docs)

    def found(serve):
        return serve.get()["applications"]["emb-docs"]

    with Client(live.state.endpoint) as client:
        golden = client.golden("docs")
    with Traffic(live.state.endpoint) as traffic:
        assert put(good, {"emb-docs": golden}, "RUNNING").pids == before["emb-docs"]
        refused = put(other, {"emb-docs": golden}, "DEPLOY_FAILED")
        assert refused.message.startswith("GoldenMismatch: The contract is v1:")
        assert measured(refused.message).worst_cosine < 0.99
        assert refused.pids == before["emb-docs"]
        assert put(good, {}, "RUNNING").pids == before["emb-docs"]
    assert traffic.failures == []


def test_what_only_a_new_cluster_can_take_is_refused(live):
    """As after an upgrade to a release with one service more."""
    applied = Path(live.state.folder) / "serve.json"
    kept = applied.read_text()
    config = json.loads(kept)
    config["grpc_options"]["grpc_servicer_functions"].pop()
    applied.write_text(json.dumps(config))
    try:
        with pytest.raises(InvalidManifest, match=r"(?s)Nothing was changed.*down and up again"):
            live.apply(small(*DOCS), RELEVANCE)
        assert json.loads(applied.read_text()) == config
    finally:
        applied.write_text(kept)


def test_another_fleets_manifests_are_refused(live):
    with pytest.raises(InvalidManifest, match=r"'other', but 'live' runs"):
        apply(fleet_of("other", small(*DOCS)), live.state, quiet)


def test_a_killed_replica_comes_back_and_no_call_fails(live):
    (killed,) = live.pids()["emb-docs"]

    def back():
        pids = live.pids()["emb-docs"]
        return len(pids) == 1 and killed not in pids

    with Traffic(live.state.endpoint) as traffic:
        os.kill(killed, signal.SIGKILL)
        wait_until(back, "no other replica came")
    assert traffic.failures == []


def leftovers(state, home):
    """What is still there of a fleet that is down."""
    processes = [process.name() for process in processes_of(state.fleet_id)]
    return processes, list(home.iterdir()), Path(state.folder).exists()


def test_replicas_are_replaced_under_traffic(live, tmp_path):
    before = live.pids()
    folder = tmp_path / "own"
    shutil.copytree(EMBEDDED / "embedder", folder)
    changed = small("Embedder", "docs", str(folder), maxTokens=100)
    with Client(live.state.endpoint) as client, Traffic(live.state.endpoint) as traffic:
        plan = live.apply(changed, RELEVANCE, allow_contract_change=True)
        # Visible once apply returns: the new replica answers, and no other.
        served = client.model("docs")
    assert traffic.failures == []
    assert plan.of("Embedder/docs") is Impact.RESTART_APP
    assert (served.source, served.max_tokens) == (str(folder), 100)
    after = live.pids()
    assert len(after["emb-docs"]) == 1
    assert not set(before["emb-docs"]) & set(after["emb-docs"])
    assert after["rrk-relevance"] == before["rrk-relevance"]


def test_fleets_run_side_by_side(live, fleet):
    assert live.state.endpoint != fleet.endpoint
    for state, served in ((live.state, {"docs", "relevance"}), (fleet, {"docs", "relevance"})):
        with Client(state.endpoint) as client:
            assert {model.name for model in client.models()} == served
    assert not {p.pid for p in processes_of(fleet.fleet_id)} & {
        p.pid for p in processes_of(live.state.fleet_id)
    }


def test_down_leaves_nothing(live):
    """Last in this file: what comes after would have no fleet."""
    state, home = live.state, live.home
    take_down(state, home)
    assert leftovers(state, home) == ([], [], False)
    with pytest.raises(Unavailable):
        applications(state)
