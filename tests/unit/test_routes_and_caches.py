"""Routes and caches: what they may say, what they may refer to, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedfleet.errors import InvalidManifest, Problem
from embedfleet.local.fleet import Up, bring_up
from embedfleet.resources import parse_manifests
from embedfleet.resources.model_source import is_local

HEAD = "apiVersion: embedfleet.io/v1alpha1\n"
FLEET = HEAD + "kind: Fleet\nmetadata: {name: laptop}\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "ab" * 32


def model(name: str, source: str, kind: str = "Embedder", more: str = "") -> str:
    spec = f"{{model: {{source: {source}}}{more}}}"
    return f"{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def route(rules: str, kind: str = "Embedder", more: str = "", name: str = "search") -> str:
    return (
        f"{HEAD}kind: ModelRoute\nmetadata: {{name: {name}}}\n"
        f"spec: {{targetKind: {kind}, rules: [{rules}]{more}}}\n"
    )


def cache(source: str, more: str = "") -> str:
    return (
        f"{HEAD}kind: ModelCache\nmetadata: {{name: weights}}\nspec: {{source: {source}{more}}}\n"
    )


def problems(*documents: str) -> tuple[Problem, ...]:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifests("---\n".join(documents), file="route.yaml")
    return refused.value.problems


def only(*documents: str) -> Problem:
    found = problems(*documents)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


ALL = "{name: all, targets: [{model: small}]}"
SMALL = model("small", "embedded/embedder")
TWO_STAGES = "{name: all, cascade: [{model: small, keep: 50}, {model: large}]}"


@pytest.mark.parametrize(
    ("rules", "kind"),
    [
        (ALL, "Embedder"),
        ("{name: ab, targets: [{model: small, weight: 9}, {model: other}]}", "Embedder"),
        (
            f"{{name: gold, when: {{tiers: [gold]}}, targets: [{{model: other}}]}}, {ALL}",
            "Embedder",
        ),
        (
            f"{{name: long, when: {{minTokens: 512}}, targets: [{{model: other}}]}}, {ALL}",
            "Reranker",
        ),
        (
            "{name: busy, when: {load: {model: small, waitAboveSeconds: 0.5}},"
            f" targets: [{{model: other}}]}}, {ALL}",
            "Reranker",
        ),
        ("{name: all, targets: [{model: small}], shadow: {model: next, percent: 5}}", "Embedder"),
        (TWO_STAGES, "Reranker"),
    ],
)
def test_every_way_of_routing_can_be_said(rules: str, kind: str) -> None:
    (found,) = parse_manifests(route(rules, kind)).routes
    assert found.spec.rules[-1].when is None


@pytest.mark.parametrize(
    ("document", "path", "value", "limit"),
    [
        (route(""), "spec.rules", "[]", "at least 1"),
        (route("{name: all}"), "spec.rules[0].targets", "0 targets", "either targets or a cascade"),
        (
            route(TWO_STAGES.replace("}]}", "}], targets: [{model: a}]}"), "Reranker"),
            "spec.rules[0].targets", "1 targets and 2 stages", "either targets or a cascade",
        ),
        (
            route("{name: all, targets: [{model: a}, {model: a}]}"),
            "spec.rules[0].targets[1].model", "a", "named twice",
        ),
        (
            route("{name: all, targets: [{model: a}], shadow: {model: a}}"),
            "spec.rules[0].shadow.model", "a", "answers in this rule already",
        ),
        (
            route("{name: all, cascade: [{model: a}]}", "Reranker"),
            "spec.rules[0].cascade", "1 stage", "at least 2",
        ),
        (
            route("{name: all, cascade: [{model: a}, {model: b}]}", "Reranker"),
            "spec.rules[0].cascade[0].keep", "missing", "every stage but the last",
        ),
        (
            route("{name: all, cascade: [{model: a, keep: 9}, {model: b, keep: 3}]}", "Reranker"),
            "spec.rules[0].cascade[1].keep", "3", "no meaning in the last stage",
        ),
        (
            route(
                "{name: all, cascade: [{model: a, keep: 9}, {model: b, keep: 9}, {model: c}]}",
                "Reranker",
            ),
            "spec.rules[0].cascade[1].keep", "9", "below the stage before, 9",
        ),
        (route(TWO_STAGES), "spec.rules[0].cascade", "2 stages", "only rerankers"),
        (
            route(f"{ALL}, {ALL.replace('all', 'rest')}"),
            "spec.rules[0].when", "missing", "only the last rule",
        ),
        (
            route("{name: gold, when: {tiers: [gold]}, targets: [{model: a}]}"),
            "spec.rules[0].when", "set", "must fit every request",
        ),
        (
            route(f"{{name: all, when: {{tiers: [gold]}}, targets: [{{model: b}}]}}, {ALL}"),
            "spec.rules[1].name", "all", "earlier rule",
        ),
        (
            route(f"{{name: none, when: {{}}, targets: [{{model: b}}]}}, {ALL}"),
            "spec.rules[0].when.tiers", "missing", "a condition is needed",
        ),
        (
            route(
                "{name: mid, when: {minTokens: 9, maxTokens: 8}, targets: [{model: b}]}, " + ALL
            ),
            "spec.rules[0].when.maxTokens", "8", "at least minTokens, 9",
        ),
        (
            route(ALL, "Reranker", ", mixedContracts: true"),
            "spec.mixedContracts", "true", "no meaning for rerankers",
        ),
        (route(ALL, more=", aliases: [router]"), "spec.aliases[0]", "router", "reserved"),
        (cache("{}"), "spec.source.hub", "missing", "exactly one source"),
        (
            cache("{path: {folder: /models}, pvc: {claimName: models}}"),
            "spec.source.hub", "path, pvc", "exactly one source",
        ),
        (cache("{hub: {name: Qwen/Qwen3-Reranker-4B}}"), "spec.revision", "missing", "pinned"),
        (
            cache("{path: {folder: /models}}", f", revision: {COMMIT}"),
            "spec.revision", COMMIT, "only a hub source",
        ),
        (
            cache("{pvc: {claimName: models}}", ", storage: {}"),
            "spec.storage", "set", "read where they lie",
        ),
        (
            cache("{http: {address: https://models.example/qwen3}}"),
            "spec.digests.files", "missing", "cannot be asked",
        ),
        (
            cache("{gcs: {bucket: b-1, prefix: q}}", f", digests: {{files: {{../x: {DIGEST}}}}}"),
            "spec.digests.files", "../x", "inside the model's folder",
        ),
        (
            cache("{oci: {reference: registry.example/qwen3:latest}}"),
            "spec.source.oci.reference", "registry.example/qwen3:latest", "with its digest",
        ),
        (
            cache("{s3: {bucket: models, prefix: /q}}"),
            "spec.source.s3.prefix", "/q", "without a leading /",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(
    document: str, path: str, value: str, limit: str
) -> None:
    found = only(document)
    assert (found.path, found.value.startswith(value)) == (path, True), found
    assert limit in found.limit
    assert found.remedy.endswith((".", "?"))


@pytest.mark.parametrize(
    "source",
    [
        "{hub: {name: qwen/qwen3-embedding-0.6b}}",  # the release pins its commit
        "{path: {folder: /models/qwen3}}",
        "{pvc: {claimName: models.team, folder: /qwen3}}",
        "{s3: {bucket: models, prefix: qwen3/v1, region: eu-central-1}}",
        "{gcs: {bucket: models, prefix: qwen3}}",
        f"{{oci: {{reference: 'registry.example:5000/qwen3@sha256:{DIGEST}'}}}}",
    ],
)
def test_every_source_can_be_said(source: str) -> None:
    (found,) = parse_manifests(cache(source)).caches
    assert len(found.spec.source.given) == 1


def test_a_web_server_needs_a_list_of_files() -> None:
    digests = f", digests: {{files: {{config.json: {DIGEST}, sub/model.safetensors: {DIGEST}}}}}"
    source = "{http: {address: https://models.example/qwen3}}"
    (found,) = parse_manifests(cache(source, digests)).caches
    assert sorted(found.spec.digests.files) == ["config.json", "sub/model.safetensors"]


def test_a_route_to_a_missing_model_names_those_that_exist() -> None:
    found = only(FLEET, SMALL, route(ALL.replace("small", "smal")))
    assert found.path == "spec.rules[0].targets[0].model"
    assert (found.value, found.limit) == ("smal", "is no Embedder that is given; known: small")


def test_a_route_alone_is_resolved_where_it_is_applied() -> None:
    assert parse_manifests(route(ALL)).routes[0].name == "search"


def test_a_model_of_another_kind_is_no_target() -> None:
    reranker = model("rank", "embedded/reranker", "Reranker")
    found = only(FLEET, SMALL, reranker, route(ALL.replace("small", "rank")))
    assert found.value == "rank"


def test_a_route_stays_in_its_fleet() -> None:
    other = FLEET.replace("laptop", "lab")
    small = model("small", "embedded/embedder", more=", fleet: lab")
    found = only(FLEET, other, small, route(ALL, more=", fleet: laptop"))
    assert "is served by Fleet/lab, this route by Fleet/laptop" in found.limit


TWO = "{name: all, targets: [{model: small}, {model: big}]}"
QWEN = model("small", "Qwen/Qwen3-Embedding-0.6B")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (QWEN, model("big", "Qwen/Qwen3-Embedding-4B"), "two sizes"),
        (QWEN, model("big", "Qwen/Qwen3-Embedding-0.6B", more=""), "one checkpoint twice"),
        (QWEN, model("big", "/models/unknown"), "digests decide, once they are known"),
    ],
)
def test_vectors_of_two_sizes_are_not_mixed_by_accident(
    first: str, second: str, reason: str
) -> None:
    documents = (FLEET, first, second)
    assert parse_manifests("---\n".join([*documents, route(TWO, more=", mixedContracts: true")]))
    if reason == "two sizes":
        assert "makes other vectors than small" in only(*documents, route(TWO)).limit
    else:
        assert parse_manifests("---\n".join([*documents, route(TWO)]))


def test_a_shadow_may_make_other_vectors_since_nobody_gets_them() -> None:
    shadowed = "{name: all, targets: [{model: small}], shadow: {model: big}}"
    documents = [FLEET, QWEN, model("big", "Qwen/Qwen3-Embedding-4B"), route(shadowed)]
    assert parse_manifests("---\n".join(documents))


def test_a_route_shares_the_names_of_models() -> None:
    assert only(SMALL, route(ALL, name="small")).limit.startswith("is taken by Embedder/small")
    assert only(SMALL, route(ALL, name="router")).limit == "is reserved for the fleet itself"


HELD = cache("{hub: {name: Qwen/Qwen3-Embedding-0.6B}}")
ELSEWHERE = cache("{s3: {bucket: models, prefix: qwen3}}")


def served_from(model: str, name: str = "weights", kind: str = "Embedder") -> str:
    spec = f"{{model: {{{model}cache: {name}}}}}"
    return f"{HEAD}kind: {kind}\nmetadata: {{name: docs}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("model", "cached"),
    [
        ("", HELD),  # what is cached
        ("", ELSEWHERE),
        ("size: 0.6B, ", HELD),
        ("source: qwen/qwen3-embedding-0.6b, ", HELD),
        ("size: 0.6B, ", ELSEWHERE),  # digests decide
        ("size: 0.6B, ", ""),  # resolved where it is applied
    ],
)
def test_a_model_may_name_its_cache(model: str, cached: str) -> None:
    documents = [each for each in (served_from(model), cached) if each]
    (found,) = parse_manifests("---\n".join(documents)).embedders
    assert found.spec.folder == "/models/weights"
    assert is_local(found.spec.source) == (model == "")


@pytest.mark.parametrize(
    ("model", "cached", "path", "limit"),
    [
        (served_from("", "weight"), HELD, "spec.model.cache", "no ModelCache that is given"),
        (served_from("size: 4B, "), HELD, "spec.model.cache", "holds Qwen/Qwen3-Embedding-0.6B"),
        (
            served_from(f"size: 0.6B, revision: {COMMIT}, "), HELD, "spec.model.cache",
            "holds commit ",
        ),
        (served_from("", kind="Reranker"), HELD, "spec.model.cache", "a published embedder"),
        (served_from("source: /models/a, "), "", "spec.model.cache", "/models/a is local"),
        (served_from(f"revision: {COMMIT}, "), "", "spec.model.revision", "says which commit"),
    ],
    ids=["missing", "another-model", "another-commit", "another-role", "local", "two-commits"],
)  # fmt: skip
def test_a_cache_that_cannot_hold_the_model_is_refused(
    model: str, cached: str, path: str, limit: str
) -> None:
    found = only(*(each for each in (model, cached) if each))
    assert (found.kind in ("Embedder", "Reranker"), found.path) == (True, path)
    assert limit in found.limit


def test_a_local_fleet_says_how_to_use_a_cached_model(tmp_path: Path) -> None:
    given = parse_manifests("---\n".join([FLEET, served_from("")]))
    with pytest.raises(InvalidManifest, match=r"embedfleet fetch -f FILE --to FOLDER") as refused:
        bring_up(given, Up(tmp_path, {}), lambda line: None)
    assert refused.value.field == "spec.model.cache"


@pytest.mark.parametrize("document", [route(ALL), cache("{path: {folder: /models}}")])
def test_a_local_fleet_does_not_pretend_to_serve_them(document: str, tmp_path: Path) -> None:
    given = parse_manifests("---\n".join([FLEET, SMALL, document]))
    with pytest.raises(InvalidManifest, match=r"does not serve them yet\. Leave them out"):
        bring_up(given, Up(tmp_path, {}), lambda line: None)
    assert not list(tmp_path.iterdir())
