"""What manifests become: defaults, sources, files, and which models a fleet serves."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path

import pytest

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.errors import InvalidManifest
from embedfleet.messages import OutputType
from embedfleet.resources import load_manifests, parse_manifests
from embedfleet.resources.embedder import EmbedderSpec
from embedfleet.resources.model_source import ModelSource, Size
from embedfleet.resources.reranker import RerankerSpec
from embedfleet.resources.shared import Backend, Weights

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
FLEET = HEAD + "kind: Fleet\nmetadata: {name: a}\n"
DOCS = HEAD + "kind: Embedder\nmetadata: {name: docs}\nspec: {model: {source: embedded/embedder}}\n"
EMBEDDED = resources.files("embedfleet.embedded").joinpath("fleet.yaml").read_text()


def test_fleet_that_comes_with_the_package() -> None:
    manifests = parse_manifests(EMBEDDED)
    assert manifests.only_fleet().name == "laptop"
    assert [e.name for e in manifests.embedders] == ["docs"]
    assert [r.name for r in manifests.rerankers] == ["relevance"]
    assert manifests.of_fleet(manifests.only_fleet()) == manifests


def test_resources_of_every_kind_are_listed_models_together() -> None:
    every = {
        "ModelCache": "{source: {hub: {name: qwen/qwen3-embedding-0.6b}}}",
        "ModelRoute": "{targetKind: Embedder, rules: [{name: all, targets: [{model: embedder}]}]}",
        "Reranker": "{model: {source: embedded/reranker}}",
        "Embedder": "{model: {source: embedded/embedder}}",
        "Fleet": "{}",
    }
    named = (
        f"{HEAD}kind: {kind}\nmetadata: {{name: {kind.lower()}}}\nspec: {spec}\n"
        for kind, spec in every.items()
    )
    manifests = parse_manifests("---\n".join(named))
    assert [each.kind for each in manifests.resources()] == [*reversed(every)]
    assert [each.kind for each in manifests.models] == ["Embedder", "Reranker"]


def test_defaults_suit_a_laptop() -> None:
    spec = parse_manifests(DOCS).embedders[0].spec
    assert (spec.scaling.min_replicas, spec.scaling.resolved_max_replicas) == (1, 1)
    assert (spec.placement.cpus, spec.placement.gpu_fraction, spec.placement.pools) == (1, None, ())
    assert spec.backend is Backend.TORCH
    assert spec.quantization.weights is Weights.AUTO
    assert spec.quantization.output is OutputType.FLOAT32
    assert spec.instruction.default == DEFAULT_INSTRUCTION
    assert spec.instruction.allow_override
    fleet = parse_manifests(FLEET).only_fleet().spec
    assert (fleet.grpc.port, fleet.grpc.max_message_bytes, fleet.pools) == (9000, 64 * 2**20, ())
    assert fleet.tls is None


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [("{}", 1), ("{minReplicas: 0}", 1), ("{minReplicas: 4}", 4), ("{maxReplicas: 7}", 7)],
)
def test_upper_bound_follows_the_lower_one(scaling: str, expected: int) -> None:
    text = DOCS.replace("spec: {", f"spec: {{scaling: {scaling}, ")
    assert parse_manifests(text).embedders[0].spec.scaling.resolved_max_replicas == expected


@pytest.mark.parametrize(
    ("spec", "source", "revision"),
    [
        (
            EmbedderSpec(model=ModelSource(size=Size.SMALL)),
            "Qwen/Qwen3-Embedding-0.6B", "b22da495047858cce924d27d76261e96be6febc0",
        ),
        (
            RerankerSpec(model=ModelSource(size=Size.LARGE, revision="c" * 40)),
            "Qwen/Qwen3-Reranker-8B", "c" * 40,
        ),
        (
            EmbedderSpec(model=ModelSource(source="qwen/qwen3-embedding-4b")),
            "Qwen/Qwen3-Embedding-4B", "636cd9bf47d976946cdbb2b0c3ca0cb2f8eea5ff",
        ),
        (EmbedderSpec(model=ModelSource(source="/models/x")), "/models/x", ""),
        (EmbedderSpec(model=ModelSource(source="file:///models/x")), "file:///models/x", ""),
        (EmbedderSpec(model=ModelSource(source="embedded/embedder")), "embedded/embedder", ""),
        (
            RerankerSpec(model=ModelSource(source="me/mine", revision="d" * 40)),
            "me/mine", "d" * 40,
        ),
    ],
)  # fmt: skip
def test_source_and_revision_are_worked_out(
    spec: EmbedderSpec | RerankerSpec, source: str, revision: str
) -> None:
    assert (spec.source, spec.revision) == (source, revision)


def test_what_the_api_server_adds_is_read_and_ignored() -> None:
    text = DOCS.replace(
        "metadata: {name: docs}",
        "metadata: {name: docs, uid: x, generation: 2, resourceVersion: '7', labels: {a: b},"
        " creationTimestamp: 2026-01-01T00:00:00Z, managedFields: [{manager: kubectl}]}",
    )
    read = parse_manifests(text + "status: {replicas: 1}\n").embedders[0]
    assert read.spec == parse_manifests(DOCS).embedders[0].spec


@pytest.mark.parametrize(
    "text",
    [
        DOCS,
        "---\n---\n" + DOCS + "---\n",
        "# only a comment\n---\n" + DOCS,
        DOCS.replace("{source: embedded/embedder}", '{"source": "embedded/embedder"}'),
        DOCS.replace("{model: {", "{aliases: [], scaling: {minReplicas: 1}, model: {"),
        DOCS.replace("{model: {", "{placement: {cpus: 1.0}, model: {"),
        DOCS.replace("{source: embedded/embedder}", "{<<: {source: embedded/embedder}}"),
    ],
    ids=["plain", "empty-documents", "comment", "json", "defaults-spelled-out", "float", "merge"],
)
def test_spelling_does_not_matter(text: str) -> None:
    assert parse_manifests(text).embedders == parse_manifests(DOCS).embedders


def test_two_fleets_keep_their_models_apart() -> None:
    text = "---\n".join(
        [
            FLEET,
            FLEET.replace("name: a", "name: b"),
            DOCS.replace("spec: {", "spec: {fleet: a, "),
            DOCS.replace("spec: {", "spec: {fleet: b, ").replace("docs", "other"),
        ]
    )
    manifests = parse_manifests(text)
    served = {f.name: [e.name for e in manifests.of_fleet(f).embedders] for f in manifests.fleets}
    assert served == {"a": ["docs"], "b": ["other"]}
    with pytest.raises(InvalidManifest, match="found a, b"):
        manifests.only_fleet()


def test_namespaces_are_separate() -> None:
    one, other = (FLEET + "---\n" + DOCS for _ in range(2))
    other = other.replace("{name: ", "{namespace: team, name: ")
    manifests = parse_manifests(one + "---\n" + other)
    assert [len(manifests.of_fleet(f).embedders) for f in manifests.fleets] == [1, 1]


def test_model_without_any_fleet_is_left_to_where_it_is_applied() -> None:
    text = DOCS.replace("spec: {", "spec: {fleet: elsewhere, placement: {pools: [gpu]}, ")
    manifests = parse_manifests(text)
    assert manifests.embedders[0].spec.fleet == "elsewhere"
    with pytest.raises(InvalidManifest, match="found none"):
        manifests.only_fleet()


def test_files_folders_and_the_stream_are_one_set(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(FLEET)
    (tmp_path / "README.md").write_text("not a manifest")
    file = tmp_path / "sub.yaml"
    file.mkdir()
    (file / "c.json").write_text(
        '{"apiVersion": "embedfleet.io/v1alpha1", "kind": "Reranker",'
        '"metadata": {"name": "r"}, "spec": {"model": {"source": "/m"}}}'
    )
    manifests = load_manifests([tmp_path, file, "-"], io.StringIO(DOCS))
    assert manifests.only_fleet().name == "a"
    assert [e.name for e in manifests.embedders] == ["docs"]
    assert [r.name for r in manifests.rerankers] == ["r"]


def test_every_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    (tmp_path / "bad.yaml").write_text("kind: Fleet\n")
    with pytest.raises(InvalidManifest) as refused:
        load_manifests([tmp_path, tmp_path / "absent.yaml"])
    found = [(Path(p.file).name, p.limit) for p in refused.value.problems]
    assert ("latin.yaml", "is not UTF-8 at byte 3") in found
    assert ("absent.yaml", "cannot be read: No such file or directory") in found
    assert ("bad.yaml", "is required") in found


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n"])
def test_nothing_is_not_a_fleet(text: str) -> None:
    with pytest.raises(InvalidManifest, match=r"^text\[1\]: file: holds no resource"):
        parse_manifests(text)


def test_what_is_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(InvalidManifest) as refused:
        load_manifests([tmp_path / "folder", tmp_path / "empty.yaml"])
    found = [(p.file, p.limit) for p in refused.value.problems]
    named = (f"{tmp_path}/folder/", f"{tmp_path}/empty.yaml")
    assert found == [(each, "holds no resource") for each in named]
    with pytest.raises(InvalidManifest, match="holds no resource"):
        load_manifests([])
