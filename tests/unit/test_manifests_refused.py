"""What is wrong with a manifest, all of it at once: path, value, limit and next move."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedfleet.errors import InvalidManifest, Problem
from embedfleet.resources import Manifests, parse_manifests
from embedfleet.resources.pool import Pool

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
FLEET = HEAD + "kind: Fleet\nmetadata: {name: laptop}\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fleet(spec: str = "{}", name: str = "laptop") -> str:
    return HEAD + f"kind: Fleet\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def embedder(spec: str, name: str = "docs", source: str = "embedded/embedder") -> str:
    model = f"model: {{source: {source}}}" if source else ""
    parts = ", ".join(part for part in (model, spec) if part)
    return HEAD + f"kind: Embedder\nmetadata: {{name: {name}}}\nspec: {{{parts}}}\n"


def reranker(spec: str, name: str = "relevance", source: str = "embedded/reranker") -> str:
    return embedder(spec, name, source).replace("kind: Embedder", "kind: Reranker")


def problems(*documents: str) -> tuple[Problem, ...]:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifests("---\n".join(documents), file="fleet.yaml")
    return refused.value.problems


def only(*documents: str) -> Problem:
    found = problems(*documents)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


@pytest.mark.parametrize(
    ("document", "path", "value", "limit", "remedy"),
    [
        # One field: type, bound, spelling.
        (fleet("{grpc: {port: 0}}"), "spec.grpc.port", "0", "at least 1", "Raise it"),
        (fleet("{grpc: {port: 65536}}"), "spec.grpc.port", "65536", "at most 65535", "Lower it"),
        (fleet("{grpc: {port: '9000'}}"), "spec.grpc.port", '"9000"', "whole number", "quotes"),
        (fleet("{grpc: {port: 1.5}}"), "spec.grpc.port", "1.5", "whole number", "Round it"),
        (fleet("{grpc: 9000}"), "spec.grpc", "9000", "mapping of fields", "field: value"),
        (fleet("{pools: {}}"), "spec.pools", "{}", "must be a list", "- "),
        (fleet("{rayVersion: 2.6}"), "spec.rayVersion", "2.6", "must be text", "quotes"),
        (fleet("{rayVersion: latest}"), "spec.rayVersion", "latest", "three numbers", ""),
        (fleet("{image: 'a b'}"), "spec.image", "a b", "image reference", ""),
        (fleet("{imagePullSecrets: [a, b, a]}"), "spec.imagePullSecrets[2]", "a", "twice",
         "Remove one"),
        (fleet("{imagePullSecrets: [A]}"), "spec.imagePullSecrets[0]", "A", "lower-case", ""),
        (fleet("{imagePullSecrets: [" + "a, " * 9 + "]}"), "spec.imagePullSecrets", "[",
         "at most 8", "Remove"),
        (fleet("{serviceAccountName: a/b}"), "spec.serviceAccountName", "a/b", "lower-case", ""),
        (fleet("{grcp: {}}"), "spec.grcp", "{}", "is not a field", "Did you mean grpc?"),
        (fleet("{zzz: 1}"), "spec.zzz", "1", "is not a field", "Known: image, rayVersion"),
        (fleet("{max_nodes: 1}"), "spec.max_nodes", "1", "is not a field", "Known"),
        (fleet(name="Laptop"), "metadata.name", "Laptop", "lower-case", ""),
        (fleet(name="x" * 48), "metadata.name", "x" * 48, "at most 47", "Shorten"),
        (HEAD + "kind: Fleet\nmetadata: {}\n", "metadata.name", "", "required", "Set it"),
        (HEAD + "kind: Fleet\n", "metadata", "", "required", "Set it"),
        (embedder("", source=""), "spec.model", "", "required", "Set it"),
        (embedder("dimension: 31"), "spec.dimension", "31", "at least 32", "Raise it"),
        (embedder("dimension: .nan"), "spec.dimension", "NaN", "whole number", ""),
        (embedder("placement: {cpus: .inf}"), "spec.placement.cpus", "", "finite", ""),
        (embedder("placement: {cpus: yes}"), "spec.placement.cpus", "true", "number", ""),
        (embedder("placement: {gpuFraction: 0}"), "spec.placement.gpuFraction", "0", "0.01", ""),
        (embedder("instruction: {allowOverride: 'no'}"), "spec.instruction.allowOverride",
         '"no"', "true or false", "quotes"),
        (embedder("quantization: {weights: fp16}"), "spec.quantization.weights", "fp16",
         "one of auto, float32, bfloat16, float16", "Choose one"),
        (embedder("quantization: {output: float32}"), "spec.quantization.output", "float32",
         "one of FLOAT32", "Did you mean FLOAT32?"),
        (embedder("backend: onnxruntime"), "spec.backend", "onnxruntime", "one of torch, echo",
         "no onnxruntime yet: use torch"),
        (embedder("maxPairTokens: 9"), "spec.maxPairTokens", "9", "is not a field", "maxTokens"),
        (embedder("maxTokens: 32769"), "spec.maxTokens", "32769", "at most 32768", "Lower it"),
        (reranker("dimension: 64"), "spec.dimension", "64", "is not a field", "Known"),
        (reranker("template: qwen"), "spec.template", "qwen", "qwen3-reranker", ""),
        (reranker("rollout: {gracefulShutdownSeconds: 5}"),
         "spec.rollout.gracefulShutdownSeconds", "5", "at least 35", "Raise it"),
        (embedder("aliases: ['a b']"), "spec.aliases[0]", "a b", "letter or digit", ""),
        (embedder("aliases: [" + "a, " * 33 + "]"), "spec.aliases", "[", "at most 32", "Remove"),
        (embedder("", source="docs"), "spec.model.source", "docs", "hub name", ""),
        (embedder("", source="./models/x"), "spec.model.source", "./models/x", "absolute", ""),
        # Between fields of one resource.
        (embedder("scaling: {minReplicas: 3, maxReplicas: 2}"), "spec.scaling.maxReplicas", "2",
         "at least minReplicas, 3", "lower minReplicas"),
        (embedder("batching: {maxBatchTokens: 5000, maxQueuedTokens: 4999}"),
         "spec.batching.maxBatchTokens", "5000", "at most maxQueuedTokens, 4999", ""),
        (embedder("aliases: [a, a]"), "spec.aliases[1]", "a", "twice", "Remove"),
        (embedder("aliases: [router]"), "spec.aliases[0]", "router", "reserved", ""),
        (embedder("aliases: [docs]"), "spec.aliases[0]", "docs", "own name", "Leave it out"),
        (embedder("", name="router"), "metadata.name", "router", "reserved", ""),
        (embedder("placement: {pools: [a, a]}"), "spec.placement.pools[1]", "a", "twice", ""),
        (embedder("dimension: 64, allowedDimensions: [32, 128]"), "spec.allowedDimensions",
         "[32, 128]", "contain the default dimension, 64", "Add it"),
        (embedder("dimension: 100, quantization: {output: BINARY}"), "spec.dimension", "100",
         "multiple of 8: BINARY packs", "Set 96, or another quantization.output"),
        (embedder("dimension: 33, quantization: {output: UBINARY}"), "spec.dimension", "33",
         "multiple of 8: UBINARY packs", "Set 32"),
        (embedder("instruction: {default: ''}"), "spec.instruction.default", "''",
         "must be text", "leave it out"),
        (reranker('instruction: {default: " \\n\\t\\u00a0\\u0001"}'),
         "spec.instruction.default", "'", "must be text", "leave it out"),
        (embedder("model: {size: '0.6B'}, dimension: 1025", source=""), "spec.dimension", "1025",
         "between 32 and the model's native 1024", "Lower it"),
        (embedder("model: {size: 4B}, allowedDimensions: [2560, 2561]", source=""),
         "spec.allowedDimensions[1]", "2561", "native 2560", "Lower it"),
        (embedder("model: {size: 8B}, allowedDimensions: [1024]", source=""),
         "spec.allowedDimensions", "[1024]", "default dimension, 4096", "Add it"),
        (embedder("model: {size: 8B}, quantization: {weights: float16}", source=""),
         "spec.quantization.weights", "float16", "overflows to NaN", "bfloat16"),
        (embedder("model: {}", source=""),
         "spec.model.source", "missing", "source, size or cache", ""),
        (embedder("", source="org/model"), "spec.model.revision", "missing", "org/model", "40"),
        (embedder("model: {source: org/model, revision: main}", source=""),
         "spec.model.revision", "main", "commit of 40", "Correct it"),
        (embedder(f"model: {{source: /m, revision: {COMMIT}}}", source=""),
         "spec.model.revision", COMMIT, "is local", "Leave it out"),
        (embedder("model: {source: Qwen/Qwen3-Embedding-4B, size: 8B}", source=""),
         "spec.model.size", "8B", "does not describe", "Leave out"),
        (embedder(f"model: {{source: Qwen/Qwen3-Reranker-4B, revision: {COMMIT}}}", source=""),
         "spec.model.source", "Qwen/Qwen3-Reranker-4B", "published reranker, not an embedder",
         "kind Reranker"),
        (embedder("", source="embedded/reranker"), "spec.model.source", "embedded/reranker",
         "no embedder that comes with", "embedded/embedder"),
        (reranker("", source="embedded/rerank"), "spec.model.source", "embedded/rerank",
         "no reranker that comes with", "embedded/reranker"),
        (reranker("model: {size: '0.6B'}", source=""), "spec.model.revision", "missing",
         "Qwen/Qwen3-Reranker-0.6B", "40-digit commit"),
        (fleet("{pools: [{name: a, minNodes: 2}]}"), "spec.pools[0].maxNodes", "1",
         "at least minNodes, 2", "Raise it"),
        (fleet("{pools: [{name: a}, {name: a}]}"), "spec.pools[1].name", "a", "earlier", "Rename"),
        (fleet("{pools: [{name: a, fallbackPool: b}]}"), "spec.pools[0].fallbackPool", "b",
         "not a pool of this fleet", "Known: a"),
        (fleet("{pools: [{name: a, fallbackPool: a}]}"), "spec.pools[0].fallbackPool", "a",
         "leads back", "circle"),
        (fleet("{pools: [{name: a, fallbackPool: b}, {name: b, accelerator: X, gpusPerNode: 1}]}"),
         "spec.pools[0].fallbackPool", "b", "same kind", ""),
        (fleet("{pools: [{name: a, accelerator: X}]}"), "spec.pools[0].gpusPerNode", "0",
         "at least 1", "CPU pool"),
        (fleet("{pools: [{name: a, gpusPerNode: 1}]}"), "spec.pools[0].accelerator", "missing",
         "is needed", "GPU type"),
        (fleet("{tls: {certificateFile: /c}}"), "spec.tls.privateKeyFile", "missing", "TLS", ""),
        (fleet("{tls: {certificateFile: c.pem, privateKeyFile: /k}}"), "spec.tls.certificateFile",
         "c.pem", "absolute path", ""),
        (fleet("{tls: {certificateFile: /c, privateKeyFile: /k, secretName: s}}"),
         "spec.tls.secretName", "s", "cannot stand beside files", "Kubernetes"),
        (fleet("{tls: {clientCaSecretName: s}}"), "spec.tls.secretName", "missing", "needed", ""),
        (fleet("{pools: [{name: a, nodeSelector: {a b: c}}]}"), "spec.pools[0].nodeSelector",
         "a b", "label key", "Correct the key"),
        (fleet("{pools: [{name: a, nodeSelector: {a: b c}}]}"), "spec.pools[0].nodeSelector.a",
         "b c", "letters, digits", ""),
        # The document itself.
        ("kind: Fleet\n", "apiVersion", "", "required", "embedfleet.io/v1alpha1"),
        (FLEET.replace("v1alpha1", "v1"), "apiVersion", "embedfleet.io/v1", "not known",
         "Did you mean embedfleet.io/v1alpha1?"),
        (HEAD + "kind: embeder\n", "kind", "embeder", "not known", "Did you mean Embedder?"),
        (HEAD + "kind: Service\n", "kind", "Service", "not known",
         "Known: Fleet, Embedder, Reranker"),
        ("- a\n", "document", '["a"]', "must be a mapping", "apiVersion and kind"),
        (FLEET + "spec: {grpc: {port: 1, port: 2}}\n", "line 4", "", "port stands here twice",
         "Remove one"),
        (FLEET + "spec: {grpc: {port: 1}\n", "line 5, column 1", "", "is not YAML", "syntax"),
        (FLEET + "spec: !!binary aGk=\n", "line 4", "", "tag", "Remove the tag"),
        (FLEET + "spec: &a [*a]\n", "document", "", "holds itself", "syntax"),
        ("a: \x07\n", "document", "", "not allowed in YAML", "syntax"),
        ("[" * 5000, "document", "", "nested too deeply", "syntax"),
    ],
)  # fmt: skip
def test_problem_says_where_what_and_what_next(
    document: str, path: str, value: str, limit: str, remedy: str
) -> None:
    problem = only(document)
    assert (problem.file, problem.document, problem.path) == ("fleet.yaml", 1, path)
    assert problem.value.startswith(value)
    assert limit in problem.limit
    assert remedy in problem.remedy
    assert problem.remedy.endswith((".", "?"))


@pytest.mark.parametrize(
    ("documents", "number", "path", "limit"),
    [
        ((fleet(), fleet()), 2, "metadata.name", "is also in fleet.yaml[1]"),
        ((embedder(""), embedder("")), 2, "metadata.name", "is also in fleet.yaml[1]"),
        ((embedder(""), reranker("", name="docs")), 2, "metadata.name", "taken by Embedder/docs"),
        ((embedder("aliases: [x]"), reranker("aliases: [x]")), 2, "spec.aliases[0]", "taken by"),
        ((embedder("aliases: [relevance]"), reranker("")), 2, "metadata.name", "taken by"),
        ((fleet(), embedder("fleet: other")), 2, "spec.fleet", "known: laptop"),
        ((fleet(), fleet(name="b"), embedder("")), 3, "spec.fleet", "2 fleets are given"),
        ((fleet(), embedder("placement: {pools: [a]}")), 2, "spec.placement.pools[0]", "none"),
        (
            (fleet("{pools: [{name: a}]}"), embedder("placement: {pools: [a, b]}")),
            2, "spec.placement.pools[1]", "known: a",
        ),
        (
            (fleet("{pools: [{name: a}]}"), embedder("placement: {gpuFraction: 0.5}")),
            2, "spec.placement.gpuFraction", "pool a has no GPUs",
        ),
        (
            (
                fleet("{pools: [{name: a}, {name: g, accelerator: X, gpusPerNode: 1}]}"),
                embedder("placement: {pools: [a, g]}"),
            ),
            2, "spec.placement.pools", "mixes GPU and CPU",
        ),
        (
            (
                fleet("{pools: [{name: g, accelerator: Tesla-T4, gpusPerNode: 1}]}"),
                embedder("quantization: {weights: bfloat16}"),
            ),
            2, "spec.quantization.weights", "compute capability 8.0",
        ),
        (
            (
                fleet(
                    "{pools: [{name: g, accelerator: NVIDIA-H200, gpusPerNode: 1, fallbackPool: v},"
                    " {name: v, accelerator: Tesla-V100-SXM2-16GB, gpusPerNode: 1}]}"
                ),
                embedder("quantization: {weights: bfloat16}"),
            ),
            2, "spec.quantization.weights", "pool v has Tesla-V100-SXM2-16GB GPUs",
        ),
        (
            (fleet("{pools: [{name: a}]}"), embedder("quantization: {weights: float16}")),
            2, "spec.quantization.weights", "pool a has no GPUs",
        ),
    ],
)  # fmt: skip
def test_contradiction_is_told_of_the_later_resource(
    documents: tuple[str, ...], number: int, path: str, limit: str
) -> None:
    problem = only(*documents)
    assert (problem.document, problem.path) == (number, path)
    assert limit in problem.limit


def test_everything_is_found_at_once() -> None:
    found = problems(
        fleet("{grpc: {port: 70000}, pols: []}"),
        embedder(
            "scaling: {minReplicas: 3, maxReplicas: 2}, maxTokens: 1, aliases: [a, a],"
            " dimension: 2000, model: {size: '0.6B', revison: x}",
            source="",
        ),
        HEAD + "kind: Rerank\n",
        "a: [\n",
    )
    assert [(p.document, p.path) for p in found] == [
        (1, "spec.grpc.port"),
        (1, "spec.pols"),
        (2, "spec.model.revison"),
        (2, "spec.scaling.maxReplicas"),
        (2, "spec.maxTokens"),
        (2, "spec.aliases[1]"),
        (2, "spec.dimension"),
        (3, "kind"),
        (4, "line 15, column 1"),
    ]


@pytest.mark.parametrize(
    ("documents", "path"),
    [
        # Each would cause a second, false problem if what was refused counted as its default.
        ((embedder("scaling: {minReplicas: 3, maxReplicas: 0}"),), "spec.scaling.maxReplicas"),
        ((embedder("dimension: 64, allowedDimensions: [64, '32']"),), "spec.allowedDimensions[1]"),
        ((fleet("{grpc: {port: x}}"), embedder("fleet: laptop")), "spec.grpc.port"),
        (
            (fleet("{pools: [{name: A}]}"), embedder("placement: {pools: [a]}")),
            "spec.pools[0].name",
        ),
        ((fleet("{pools: [{name: a, fallbackPool: b}, {name: B}]}"),), "spec.pools[1].name"),
        ((embedder("model: {source: 'a b'}", source=""),), "spec.model.source"),
        ((embedder("tls: x", source=""),), "spec.tls"),
    ],
)
def test_one_slip_is_one_problem(documents: tuple[str, ...], path: str) -> None:
    paths = {problem.path for problem in problems(*documents)} - {"spec.model"}
    assert paths == {path}


def test_problems_read_as_one_line_each() -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifests(embedder("dimension: 0, maxTokens: 0"), file="a.yaml")
    assert str(refused.value) == (
        "a.yaml[1] Embedder/docs: spec.dimension is 0: must be at least 32. Raise it.\n"
        "a.yaml[1] Embedder/docs: spec.maxTokens is 0: must be at least 16. Raise it."
    )


def test_aliases_cannot_explode() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert "more than 200000 values" in only(bomb).limit


def test_long_values_are_cut_in_messages() -> None:
    assert len(str(only(embedder("", name="x" * 100_000)))) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "scaling", "aliases", "dimension", "placement", "pools", "grpc", "tls", "fleet",
     "batching", "quantization", "allowedDimensions", "instruction", "rollout", "backend"]
)  # fmt: skip


@settings(max_examples=100)
@given(
    kind=st.sampled_from(["Fleet", "Embedder", "Reranker"]),
    spec=st.dictionaries(FIELDS, JSON, max_size=4) | JSON,
    metadata=st.just({"name": "a"}) | JSON,
)
def test_any_values_are_read_or_refused(kind: str, spec: object, metadata: object) -> None:
    document = {
        "apiVersion": "embedfleet.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec,
    }  # fmt: skip
    found: tuple[Problem, ...] = ()
    try:
        assert isinstance(parse_manifests(json.dumps(document)), Manifests)
    except InvalidManifest as refused:
        found = refused.problems or (Problem("", 0, "", "", "", "", "", ""),)
    assert all(problem.path and problem.limit and problem.remedy for problem in found)


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifests(text)


# Names as NVIDIA's GPU feature discovery labels nodes with them, and capabilities as NVIDIA lists
# them (developer.nvidia.com/cuda-gpus).
@pytest.mark.parametrize(
    ("product", "capability"),
    [
        ("Tesla-K80", 3.7), ("Tesla-P4", 6.1), ("Tesla-P100-PCIE-16GB", 6.0), ("Tesla-T4", 7.5),
        ("Tesla-V100-SXM2-16GB", 7.0), ("Tesla-V100S-PCIE-32GB", 7.0), ("Quadro-RTX-6000", 7.5),
        ("NVIDIA-GeForce-RTX-2080-Ti", 7.5), ("NVIDIA-TITAN-RTX", 7.5),
        ("NVIDIA-A100-SXM4-80GB", 8.0),
        ("NVIDIA-A10G", 8.6), ("NVIDIA-A10", 8.6), ("NVIDIA-L4", 8.9), ("NVIDIA-L40S", 8.9),
        ("NVIDIA-RTX-6000-Ada-Generation", 8.9), ("NVIDIA-RTX-A4000", 8.6), ("NVIDIA-H200", 9.0),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9.0), ("NVIDIA-GeForce-RTX-4090", 8.9),
        ("NVIDIA-B200", 10.0),
    ],
)  # fmt: skip
def test_accelerators_that_compute_in_bfloat16(product: str, capability: float) -> None:
    pool = Pool(name="a", accelerator=product, gpus_per_node=1)
    assert pool.computes_bfloat16 is (capability >= 8.0)
