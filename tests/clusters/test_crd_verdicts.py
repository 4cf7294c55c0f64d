"""A real API server judges manifests as pydantic does, and knows what each kind is for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from control_plane import ControlPlane, control_plane, missing
from hypothesis import HealthCheck, given, settings
from manifest_strategies import manifests

from embedfleet.errors import InvalidManifest
from embedfleet.resources.manifest import KINDS as PARSED
from embedfleet.resources.manifest import parse_manifests
from embedfleet_operator.crds import KINDS, RULES, Kind, definition

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "everything is there")

GROUP = "/apis/embedfleet.io/v1alpha1"
PER_KIND = 130
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BY_NAME = {kind.name: kind for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with (
        tempfile.TemporaryDirectory(prefix="ef-plane-") as folder,
        control_plane(Path(folder)) as running,
    ):
        running.install([definition(kind) for kind in KINDS])
        yield running


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    with plane.client() as connected:
        yield connected


class Quoting(yaml.SafeDumper):
    """Quotes every text: what 1e3 means without quotes differs between versions of YAML."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def text_of(manifest: Any) -> str:
    return yaml.dump(manifest, Dumper=Quoting, allow_unicode=True, sort_keys=False)


def address(kind: str, name: str = "") -> str:
    path = f"{GROUP}/namespaces/default/{BY_NAME[kind].plural}"
    return f"{path}/{name}" if name else path


def create(client: httpx.Client, text: str, kind: str, *, dry: bool = True) -> httpx.Response:
    return client.post(
        address(kind),
        content=text.encode(),
        headers={"Content-Type": "application/yaml"},
        params={"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {}),
    )


def parsed(text: str) -> tuple[Any, str]:
    """Give the resource, or why it is none."""
    try:
        found = parse_manifests(text)
    except InvalidManifest as error:
        return None, str(error)
    (resource,) = (
        *found.fleets, *found.embedders, *found.rerankers, *found.routes, *found.caches,
    )  # fmt: skip
    return resource, ""


def judge_twice(client: httpx.Client, manifest: dict[str, Any]) -> bool:
    """Have both judge the same text; what both accept must mean the same to both."""
    text = text_of(manifest)
    resource, refusal = parsed(text)
    response = create(client, text, manifest["kind"])
    assert response.status_code in (201, 400, 422), response.text
    if response.is_success:
        assert resource is not None, f"only the API server accepts\n{text}\n{refusal}"
        stored = PARSED[manifest["kind"]].model_validate_json(response.content)
        assert stored.spec == resource.spec, text  # type: ignore[attr-defined]
    else:
        message = response.json()["message"]
        assert resource is None, f"only the API server refuses\n{text}\n{message}"
    return response.is_success


@every_kind
def test_both_give_the_same_verdict(client: httpx.Client, kind: Kind) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    verdicts: Counter[bool] = Counter()

    @settings(
        max_examples=PER_KIND,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(manifests(kind.name, spec, [each for name, each in ACCEPTED if name == kind.name]))
    def compare(manifest: dict[str, Any]) -> None:
        verdicts[judge_twice(client, manifest)] += 1

    compare()
    assert verdicts.total() >= 100
    assert min(verdicts[True], verdicts[False]) >= 10, verdicts


MODEL = {"source": "embedded/embedder"}
ALL = {"name": "all", "targets": [{"model": "a"}]}
EXISTING = {"dashboard": "http://ray-head:8265", "serveHost": "ray-head"}
POOL = {"name": "a", "accelerator": "NVIDIA-H200", "gpusPerNode": 1}


def embedder(**more: Any) -> tuple[str, dict[str, Any]]:
    return "Embedder", {"model": MODEL, **more}


def reranker(source: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "Reranker", {"model": {"source": source}, **more}


def fleet(*pools: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return "Fleet", {"pools": list(pools), **more}


def route(*rules: dict[str, Any], kind: str = "Embedder", **more: Any) -> Any:
    return "ModelRoute", {"targetKind": kind, "rules": list(rules), **more}


def cascade(*stages: tuple[str, int | None], kind: str = "Reranker") -> Any:
    models = [{"model": m} | ({"keep": keep} if keep else {}) for m, keep in stages]
    return route({"name": "all", "cascade": models}, kind=kind)


def cache(source: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return "ModelCache", {"source": source, **more}


def ring(*names: str) -> tuple[str, dict[str, Any]]:
    return fleet(*({"name": n, "fallbackPool": names[i - 1]} for i, n in enumerate(names)))


REFUSED: list[tuple[str, dict[str, Any]]] = [
    fleet({"name": "a", "tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}),
    fleet({"name": "a", "tolerations": [{"operator": "Equal"}]}),
    fleet({"name": "a", "nodeSelector": {"-": "x"}}),
    fleet({"name": "a", "minNodes": 2}),
    fleet({"name": "a", "accelerator": "NVIDIA-H200"}),
    fleet({"name": "a", "gpusPerNode": 1}),
    fleet(tls={"secretName": "a", "certificateFile": "/c", "privateKeyFile": "/k"}),
    fleet(tls={"clientCaSecretName": "a"}),
    fleet(existingCluster=EXISTING, gcsFaultTolerance={"redisAddress": "redis:6379"}),
    fleet(tls={"privateKeyFile": "/k"}),
    fleet(tls={"certificateFile": "/c"}),
    fleet({"name": "a", "fallbackPool": "b"}),
    fleet(POOL, {"name": "b", "fallbackPool": "a"}),
    ring("a"),
    ring("a", "b", "c"),
    ring(*(f"p{n}" for n in range(16))),
    embedder(batching={"maxBatchTokens": 4096, "maxQueuedTokens": 2048}),
    embedder(batching={"maxItemsPerRequest": 4096, "maxQueuedItems": 2048}),
    embedder(placement={"pools": ["a", "a"]}),
    embedder(scaling={"minReplicas": 3, "maxReplicas": 2}),
    embedder(aliases=["router"]),
    embedder(aliases=["docs"]),
    embedder(model={}),
    embedder(model={"size": "4B", "source": "Qwen/Qwen3-Embedding-8B"}),
    embedder(model={**MODEL, "revision": COMMIT}),
    embedder(model={**MODEL, "cache": "weights"}),
    embedder(model={"cache": "weights", "revision": COMMIT}),
    embedder(model={"source": "someone/finetune"}),
    embedder(model={"source": "Qwen/Qwen3-Reranker-4B", "revision": COMMIT}),
    embedder(model={"size": "8B"}, quantization={"weights": "float16"}),
    embedder(model={"source": "Qwen/Qwen3-Embedding-8B"}, quantization={"weights": "float16"}),
    embedder(dimension=100, quantization={"output": "BINARY"}),
    embedder(instruction={"default": " \n\u00a0\u0001"}),
    embedder(model={"size": "0.6B"}, dimension=1025),
    embedder(model={"size": "0.6B"}, allowedDimensions=[1024, 1025]),
    embedder(model={"size": "0.6B"}, allowedDimensions=[512]),
    embedder(dimension=64, allowedDimensions=[32]),
    reranker("embedded/reranker", aliases=["router"]),
    embedder(model={"source": "embedded/reranker"}),
    reranker("embedded/rerank"),
    ("Reranker", {"model": {}}),
    ("Reranker", {"model": {"size": "4B"}}),
    ("Reranker", {"model": {"size": "4B", "source": "embedded/reranker"}}),
    reranker("Qwen/Qwen3-Reranker-4B"),
    reranker("Qwen/Qwen3-Embedding-4B"),
    ("Reranker", {"model": {"source": "/m", "revision": COMMIT}}),
    reranker("", model={"size": "8B", "revision": COMMIT}, quantization={"weights": "float16"}),
    route(ALL, aliases=["router"]),
    route({**ALL, "name": "first", "when": {}}, ALL),
    route({**ALL, "name": "first", "when": {"minTokens": 9, "maxTokens": 8}}, ALL),
    route({"name": "all"}),
    route({**ALL, "shadow": {"model": "a"}}),
    route(ALL, {"name": "rest", "targets": [{"model": "b"}]}),
    route({**ALL, "when": {"tiers": ["gold"]}}),
    route({**ALL, "when": {"tiers": ["gold"]}}, ALL),
    route(ALL, kind="Reranker", mixedContracts=True),
    cascade(("a", 9), ("a", None)),
    cascade(("a", None)),
    cascade(("a", 9), ("b", 3)),
    cascade(("a", None), ("b", None)),
    cascade(("a", 9), ("b", 9), ("c", None)),
    cascade(("a", 9), ("b", None), kind="Embedder"),
    cache({}),
    cache({"path": {"folder": "/m"}, "pvc": {"claimName": "m"}}),
    cache({"gcs": {"bucket": "models", "prefix": "q"}}, digests={"files": {"../x": "ab" * 32}}),
    cache({"path": {"folder": "/m"}}, revision=COMMIT),
    cache({"hub": {"name": "someone/finetune"}}),
    cache({"pvc": {"claimName": "m"}}, storage={}),
    cache({"http": {"address": "https://models.example/q"}}),
]  # fmt: skip
"""At least one manifest for each rule in CEL."""

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    fleet(existingCluster=EXISTING),
    fleet({"name": "a", "fallbackPool": "b"}, {"name": "b", "fallbackPool": "c"}, {"name": "c"}),
    fleet(*({"name": f"p{n}", "fallbackPool": f"p{n + 1}"} for n in range(15)), {"name": "p15"}),
    fleet(
        {**POOL, "minNodes": 1, "maxNodes": 4, "nodeSelector": {"cloud.example/gpu": "h200"},
         "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        imagePullSecrets=["r.example", "b"], serviceAccountName="reader",
        tls={"secretName": "tls", "clientCaSecretName": "ca"}, auth={"tokenSecretName": "t"},
        gcsFaultTolerance={"redisAddress": "redis:6379"}, head={"cpus": 4}, image="fleet:1",
    ),
    embedder(model={"source": "qwen/QWEN3-embedding-0.6b", "size": "0.6B"}, dimension=1024),
    embedder(model={"source": "someone/finetune", "revision": COMMIT}, dimension=16_384),
    embedder(
        model={"size": "4B"}, fleet="a", aliases=["b"], allowedDimensions=[32, 2560],
        scaling={"minReplicas": 0, "maxReplicas": 2}, placement={"pools": ["a"], "cpus": 0.5},
        batching={"maxBatchTokens": 4096}, instruction={"default": "Find it"}, maxTokens=512,
        rollout={"maxSurgePercent": 25}, quantization={"weights": "float16"}, backend="echo",
        verification={"minCosine": 0.999, "goldenConfigMapName": "docs-golden"},
    ),
    embedder(dimension=104, quantization={"output": "UBINARY"}),
    embedder(dimension=100, quantization={"output": "INT8"}),
    embedder(instruction={"default": " \u200b"}),
    embedder(model={"cache": "weights"}, dimension=16_384),
    embedder(model={"size": "0.6B", "cache": "weights"}),
    reranker("", model={"cache": "weights"}),
    reranker("Qwen/Qwen3-Reranker-8B", model={"size": "8B", "revision": COMMIT}),
    reranker("embedded/reranker", maxPairTokens=512, scaling={"minReplicas": 2}, aliases=["b"]),
    reranker(
        "embedded/reranker",
        verification={"minRankAgreement": -0.5, "goldenConfigMapName": "relevance-golden"},
    ),
    cascade(("a", 9), ("b", 8), ("c", 7), ("d", None)),
    route(
        {"name": "gold", "when": {"tiers": ["gold"], "minTokens": 1, "maxTokens": 9},
         "targets": [{"model": "a", "weight": 9}, {"model": "b"}]},
        {**ALL, "shadow": {"model": "c", "percent": 5}}, mixedContracts=True, aliases=["b"],
    ),
    route(
        {"name": "busy", "when": {"load": {"model": "a", "waitAboveSeconds": 0.5}},
         "targets": [{"model": "b"}]},
        {"name": "rest", "cascade": [{"model": "a", "keep": 9}, {"model": "b"}]}, kind="Reranker",
    ),
    cache({"hub": {"name": "qwen/qwen3-embedding-4b"}}, storage={"sizeGib": 9}),
    cache({"hub": {"name": "someone/x", "tokenSecretName": "t"}}, revision=COMMIT),
    cache({"path": {"folder": "/m"}}, digests={"weights": "ab" * 32, "tokenizer": "cd" * 32}),
    cache({"pvc": {"claimName": "m", "folder": "/q"}}),
    cache(
        {"s3": {"bucket": "models", "prefix": "q", "region": "eu", "endpoint": "http://s3"}},
        imagePullSecrets=["r.example"], serviceAccountName="reader",
    ),
    cache({"gcs": {"bucket": "models", "prefix": "q", "credentialsSecretName": "s"}}),
    cache({"oci": {"reference": f"r.example:5000/q@sha256:{'ab' * 32}"}}),
    cache(
        {"http": {"address": "https://models.example/q"}},
        digests={"files": {"config.json": "ab" * 32, "sub/model.safetensors": "cd" * 32}},
    ),
]  # fmt: skip


def manifest(kind: str, spec: dict[str, Any], name: str = "docs") -> dict[str, Any]:
    return {
        "apiVersion": "embedfleet.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED)
def test_both_accept(client: httpx.Client, kind: str, spec: dict[str, Any]) -> None:
    assert judge_twice(client, manifest(kind, spec))


def test_every_rule_refuses_what_it_is_for(client: httpx.Client) -> None:
    said = []
    for kind, spec in REFUSED:
        assert not judge_twice(client, manifest(kind, spec)), spec
        said.append(create(client, text_of(manifest(kind, spec)), kind).json()["message"])
    stated = {rule.message for rules in RULES.values() for rule in rules}
    assert {message for message in stated if not any(message in each for each in said)} == set()


def test_a_refusal_names_field_value_limit_and_next_move(client: httpx.Client) -> None:
    kind, spec = embedder(scaling={"minReplicas": 3, "maxReplicas": 2})
    message = create(client, text_of(manifest(kind, spec)), kind).json()["message"]
    assert message.endswith(
        "spec.scaling.maxReplicas: Invalid value: 2: must be at least minReplicas."
        " Raise it or lower minReplicas."
    )


@pytest.mark.parametrize("name", ["router", "Upper", "a.b", "4b", "a" * 48, "a-"])
def test_names_that_are_refused(client: httpx.Client, name: str) -> None:
    assert not judge_twice(client, manifest(*embedder(), name=name))


def test_a_list_of_named_things_has_each_name_once(client: httpx.Client) -> None:
    for kind, spec in (
        fleet({"name": "a"}, {"name": "a"}),
        fleet(imagePullSecrets=["a", "a"]),
        cache({"path": {"folder": "/m"}}, imagePullSecrets=["a", "a"]),
        embedder(aliases=["x", "x"]),
        embedder(dimension=32, allowedDimensions=[32, 32]),
        route({"name": "all", "targets": [{"model": "a"}, {"model": "a"}]}),
    ):
        assert not judge_twice(client, manifest(kind, spec))


@pytest.fixture
def made(client: httpx.Client) -> Iterator[str]:
    """An Embedder that is stored, deleted afterwards."""
    spec = {"model": {"size": "0.6B"}, "dimension": 512, "scaling": {"maxReplicas": 4}}
    response = create(client, text_of(manifest("Embedder", spec)), "Embedder", dry=False)
    assert response.is_success, response.text
    yield address("Embedder", "docs")
    client.delete(address("Embedder", "docs"))


MERGE = {"Content-Type": "application/merge-patch+json"}


def set_accepted(client: httpx.Client, at: str, value: str) -> None:
    condition = {
        "type": "Accepted",
        "status": value,
        "lastTransitionTime": "2026-11-23T12:00:00Z",
        "reason": "Valid",
        "message": "The spec can be served.",
    }
    status = {"conditions": [condition], "contractHash": "v1:0", "replicas": 1}
    response = client.patch(f"{at}/status", json={"status": status}, headers=MERGE)
    assert response.is_success, response.text


@pytest.mark.parametrize(
    ("accepted", "change", "allowed"),
    [
        ("True", {"model": {"size": "4B"}}, False),
        ("True", {"model": {"revision": COMMIT}}, False),
        ("True", {"model": {"cache": "weights"}}, True),  # where the same files lie
        ("True", {"model": {"size": None, "cache": "weights"}}, False),
        ("True", {"quantization": {"weights": "float32"}}, False),
        ("True", {"quantization": {"output": "INT8"}}, True),  # how vectors are written
        ("True", {"dimension": 256}, True),  # a prefix of the same vector
        ("True", {"aliases": ["texts"]}, True),
        ("False", {"model": {"size": "4B"}}, True),  # nothing was ever served
        ("Unknown", {"model": {"size": "4B"}}, True),
    ],
)
def test_what_made_vectors_cannot_change_once_accepted(
    client: httpx.Client, made: str, accepted: str, change: dict[str, Any], allowed: bool
) -> None:
    set_accepted(client, made, accepted)
    response = client.patch(made, json={"spec": change}, headers=MERGE)
    assert response.is_success == allowed, response.text
    if not allowed:
        assert "cannot change. Create another beside it" in response.json()["message"]


@pytest.mark.parametrize(
    ("cached", "change", "allowed"),
    [
        ("True", {"source": {"path": {"folder": "/models/b"}}}, False),
        ("True", {"digests": {"tokenizer": "ab" * 32}}, True),  # held to more than before
        ("False", {"source": {"path": {"folder": "/models/b"}}}, True),  # nobody reads it yet
    ],
)
def test_what_is_cached_cannot_change_under_its_readers(
    client: httpx.Client, cached: str, change: dict[str, Any], allowed: bool
) -> None:
    spec = {"source": {"path": {"folder": "/models/a"}}}
    created = create(client, text_of(manifest("ModelCache", spec)), "ModelCache", dry=False)
    assert created.is_success, created.text
    at = address("ModelCache", "docs")
    try:
        condition = {
            "type": "Cached",
            "status": cached,
            "lastTransitionTime": "2026-11-23T12:00:00Z",
            "reason": "Fetched",
            "message": "",
        }
        status = {"status": {"conditions": [condition]}}
        assert client.patch(f"{at}/status", json=status, headers=MERGE).is_success
        response = client.patch(at, json={"spec": change}, headers=MERGE)
        assert response.is_success == allowed, response.text
    finally:
        client.delete(at)


@pytest.mark.parametrize(
    ("source", "storage", "change", "remedy"),
    [
        ("hub", {"sizeGib": 50}, {"storage": {"sizeGib": 60}}, ""),
        ("hub", None, {"storage": {"sizeGib": 50}}, ""),  # the default, written down
        ("hub", {"accessMode": "ReadWriteMany"}, {"storage": None}, ""),  # and taken out
        ("hub", {"sizeGib": 60}, {"storage": {"sizeGib": 59}}, "59: a volume that was claimed"),
        ("hub", {"sizeGib": 60}, {"storage": None}, "50: a volume that was claimed only grows"),
        ("hub", None, {"storage": {"sizeGib": 49}}, "only grows. Raise it, or create another"),
        ("hub", None, {"storage": {"accessMode": "ReadWriteOnce"}}, "Once: of a volume that"),
        ("hub", None, {"storage": {"storageClassName": "fast"}}, "fast: of a volume that was"),
        ("hub", {"storageClassName": "a"}, {"storage": None}, "Create another ModelCache beside"),
        ("path", None, {"source": {"path": None, "hub": {"name": "a/b"}}, "revision": COMMIT,
                        "storage": {"sizeGib": 1, "storageClassName": "fast"}}, ""),
    ],
)  # fmt: skip
def test_what_a_claim_cannot_become_is_refused_where_it_is_written(
    client: httpx.Client, source: str, storage: Any, change: dict[str, Any], remedy: str
) -> None:
    """https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims"""
    sources = {"hub": {"name": "Qwen/Qwen3-Embedding-0.6B"}, "path": {"folder": "/m"}}
    spec = {"source": {source: sources[source]}} | ({"storage": storage} if storage else {})
    created = create(client, text_of(manifest("ModelCache", spec)), "ModelCache", dry=False)
    assert created.is_success, created.text
    at = address("ModelCache", "docs")
    try:
        response = client.patch(at, json={"spec": change}, headers=MERGE)
        assert response.is_success == (not remedy), response.text
        assert remedy in response.json().get("message", "")
    finally:
        client.delete(at)


def test_scaling_from_outside_sets_the_minimum(client: httpx.Client, made: str) -> None:
    assert client.get(f"{made}/scale").json()["spec"] == {"replicas": 1}
    grown = client.patch(f"{made}/scale", json={"spec": {"replicas": 3}}, headers=MERGE)
    assert grown.is_success, grown.text
    assert client.get(made).json()["spec"]["scaling"]["minReplicas"] == 3
    beyond = client.patch(f"{made}/scale", json={"spec": {"replicas": 5}}, headers=MERGE)
    assert beyond.status_code == 422
    assert "must be at least minReplicas" in beyond.json()["message"]


def test_columns_say_whether_what_how_much_and_where(client: httpx.Client, made: str) -> None:
    set_accepted(client, made, "True")
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    shown = client.get(made, headers=table).json()
    names = [each["name"] for each in shown["columnDefinitions"]]
    row = dict(zip(names, shown["rows"][0]["cells"], strict=True))
    assert row["Model"] == "0.6B"
    assert (row["Dimension"], row["Replicas"], row["Contract"]) == (512, 1, "v1:0")


def test_short_names_and_the_category_are_served(client: httpx.Client) -> None:
    found = {each["kind"]: each for each in client.get(GROUP).json()["resources"][::-1]}
    for kind in KINDS:
        assert found[kind.name]["shortNames"] == [kind.short]
        assert found[kind.name]["categories"] == ["embedfleet"]
