"""Ten thousand manifests, most of them wrong, and answers of Serve that are none."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from memory_serve import Serve
from operator_facts import conditions, known, raw

from embedfleet_operator.acting.serve_clusters import read_state
from embedfleet_operator.deciding.decide import decide
from embedfleet_operator.observing.seen import ServeState
from embedfleet_operator.rendering import Manifest

COUNT: Final = 10_000
PER_FLEET: Final = 10
EMBEDDED: Final = {"source": "embedded/embedder"}
POOL: Final = {
    "name": "a", "minNodes": 1, "maxNodes": 2, "accelerator": "NVIDIA-H200", "gpusPerNode": 1,
    "fallbackPool": "b", "tolerations": [{"key": "k", "operator": "Exists"}],
    "nodeSelector": {"zone": "x"},
}  # fmt: skip
SEEDS: Final[dict[str, list[dict[str, Any]]]] = {
    "Fleet": [
        {"pools": [POOL, {"name": "b"}], "tls": {"secretName": "t", "clientCaSecretName": "c"}},
        {
            "existingCluster": {"dashboard": "http://ray:8265", "serveHost": "ray"},
            "auth": {"tokenSecretName": "t"}, "pools": [{"name": "a"}],
        },
        {"pools": [{"name": "a", "minNodes": 1}], "gcsFaultTolerance": {"address": "redis:6379"}},
    ],
    "Embedder": [
        {
            "fleet": "f", "model": EMBEDDED, "dimension": 64, "allowedDimensions": [32, 64],
            "aliases": ["x"], "placement": {"pools": ["a"], "gpuFraction": 0.5, "cpus": 2},
            "scaling": {"minReplicas": 1, "maxReplicas": 3}, "instruction": {"default": "Find."},
        },
        {"model": {"size": "0.6B", "cache": "weights"}, "quantization": {"weights": "FLOAT16"}},
        {
            "model": {"source": "someone/finetune", "revision": "0" * 40},
            "verification": {"goldenConfigMapName": "g", "minCosine": 0.99},
        },
    ],
    "Reranker": [
        {"model": {"source": "embedded/reranker"}, "maxPairTokens": 512},
        {"fleet": "f", "model": {"size": "0.6B"}, "rollout": {"maxSurgePercent": 50}},
    ],
    "ModelRoute": [
        {
            "targetKind": "Embedder", "aliases": ["search"],
            "rules": [
                {"name": "big", "when": {"tiers": ["x"]}, "targets": [{"model": "m1"}]},
                {"name": "all", "targets": [{"model": "m2"}]},
            ],
        },
    ],
    "ModelCache": [
        {"source": {"hub": {"name": "Qwen/Qwen3-Embedding-0.6B"}}},
        {"source": {"http": {"url": "https://x.example/m"}}, "volume": {"sizeGib": 5}},
    ],
}  # fmt: skip
ODD: Final[list[Any]] = [
    None, "", "x", "a\n", "ü\x00", "é" * 5000, 0, -1, 7, 1.5, 1e300, 2**70, True, [], {}, [None],
    {"": None}, [[]], {"a": {"a": {"a": []}}}, "../..", "${jndi}", "2026-01-01",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something could be changed."""
    keys: Any = value.keys() if isinstance(value, dict) else ()
    if isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def changed(rng: random.Random, whole: dict[str, Any], times: int) -> dict[str, Any]:
    """Change some places of a value for what does not belong there."""
    whole = {"": copy.deepcopy(whole)}
    for _ in range(times):
        *path, last = rng.choice(list(places(whole)))
        holder: Any = whole
        for key in path:
            holder = holder[key]
        match rng.randrange(5):
            case 0 if isinstance(holder, dict):
                holder[rng.choice(["unknown", "min_replicas", "", "é", "metadata"])] = 1
            case 1 if path:
                del holder[last]
            case 2 if isinstance(holder[last], list):
                holder[last] = holder[last] * 200
            case _:
                holder[last] = copy.deepcopy(rng.choice(ODD))
        if "" not in whole:
            whole = {"": None}
    found: dict[str, Any] = whole[""]
    return found


def manifest(rng: random.Random, kind: str, name: str) -> Manifest:
    # Now and then another kind's spec.
    kinds = [kind] * 9 + list(SEEDS)
    spec = changed(rng, rng.choice(SEEDS[rng.choice(kinds)]), rng.choice([0, 1, 1, 2, 5]))
    found = raw(kind, name, spec, rng.randrange(50))
    if rng.random() < 0.05:
        del found["spec"]
    if rng.random() < 0.1:
        extra = rng.choice(["labels", "annotations", "managedFields", "status"])
        place = found if extra == "status" else found["metadata"]
        place[extra] = copy.deepcopy(rng.choice(ODD))
    return found


KINDS: Final = ("Embedder", "Embedder", "Reranker", "ModelRoute", "ModelCache")
FIELD: Final = re.compile(r"\b(spec|metadata|status|unknown|document|apiVersion|kind)\b|ConfigMap")
"""How a refusal names what it speaks of."""


@pytest.mark.parametrize("seed", range(10))
def test_no_manifest_stops_the_operator(seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(COUNT // 10 // PER_FLEET):
        fleet = manifest(rng, "Fleet", "f")
        resources = [
            manifest(rng, rng.choice(KINDS), f"m{number}") for number in range(PER_FLEET - 1)
        ]
        if rng.random() < 0.5:
            # A good fleet, so that its models are looked at.
            fleet["spec"] = {"pools": [{"name": "a"}, {"name": "b"}]}
        others = [manifest(rng, "Fleet", "g")] if rng.random() < 0.1 else []
        decision = decide(known(fleet, resources, others, serve=ServeState("")))
        for status in decision.statuses.values():
            found = conditions(status)
            assert len(found) == 7
            if found["Accepted"].startswith("False"):
                refused += 1
                (accepted,) = (c for c in status.conditions or () if c.type == "Accepted")
                assert FIELD.search(accepted.message), accepted.message
    # Neither all nor none: else this would say little.
    assert COUNT // 40 < refused < COUNT // 10


@pytest.mark.parametrize("seed", range(10))
def test_no_answer_of_serve_stops_the_operator(seed: int) -> None:
    rng = random.Random(seed)
    fleet = raw("Fleet", "f", SEEDS["Fleet"][1] | {"auth": None})
    models = [
        raw("Embedder", "docs", {"model": EMBEDDED}),
        raw("Reranker", "relevance", {"model": {"source": "embedded/reranker"}}),
    ]
    serve = Serve()
    config = decide(known(fleet, models, serve=ServeState(""))).config
    assert config is not None
    serve.put(config)
    serve.details()
    truth = serve.details()
    truth["applications"]["emb-docs"]["deployments"]["main"]["autoscaling_detail"] = {
        "decisions": [
            {"timestamp_s": 1.5, "prev_num_replicas": 1, "curr_num_replicas": 2, "reason": "load"}
        ]
    }
    understood = 0
    for _ in range(100):
        lie = json.loads(json.dumps(changed(rng, truth, rng.choice([1, 2, 4]))))
        try:
            state = read_state(lie)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        understood += 1
        decide(known(fleet, models, serve=state))
    assert 20 < understood < 100
