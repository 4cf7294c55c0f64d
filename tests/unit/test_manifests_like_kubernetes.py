"""A manifest means on a laptop what it means to the API server."""

from __future__ import annotations

import pytest

from embedfleet.errors import InvalidManifest
from embedfleet.resources import Fleet, parse_manifests

HEAD = "apiVersion: embedfleet.io/v1alpha1\nkind: Fleet\n"


def fleet(spec: str, metadata: str = "name: laptop") -> Fleet:
    return parse_manifests(f"{HEAD}metadata: {{{metadata}}}\nspec: {spec}\n").fleets[0]


@pytest.mark.parametrize(
    ("spec", "like", "reason"),
    [
        ("", "{}", "spec has a default"),
        ("{grpc: }", "{}", "so has a part of it"),
        ("{grpc: {port: }}", "{}", "and a field of that"),
        ("{pools: }", "{}", "and a list"),
        ("{image: }", "{}", "none is needed"),
        ("{pools: [{name: a, fallbackPool: }]}", "{pools: [{name: a}]}", "deeper too"),
        (
            "{pools: [{name: a, nodeSelector: {zone: , disk: ssd}}]}",
            "{pools: [{name: a, nodeSelector: {disk: ssd}}]}",
            "and in a mapping",
        ),
    ],
)
def test_null_is_what_is_left_out(spec: str, like: str, reason: str) -> None:
    assert fleet(spec) == fleet(like), reason


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{auth: {tokenSecretName: }}", "spec.auth.tokenSecretName"),  # needed
        ("{pools: [null]}", "spec.pools[0]"),  # an entry has a place
        ("{poolz: }", "spec.poolz"),  # no field, whatever it holds
    ],
)
def test_null_does_not_hide_what_is_wrong(spec: str, path: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        fleet(spec)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert fleet("{grpc: {port: 9001.0}}").spec.grpc.port == 9001


def test_fields_have_one_spelling() -> None:
    with pytest.raises(InvalidManifest, match="Did you mean rayVersion"):
        fleet("{ray_version: 2.60.1}")


def test_a_namespace_may_be_any_that_kubernetes_has() -> None:
    assert fleet("{}", "name: a, namespace: 4-team").metadata.namespace == "4-team"


@pytest.mark.parametrize("text", ["9e3", "9E3", "9.0e3", "+9e+3"])
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    """As YAML 1.2 has it, which the API server reads; YAML 1.1 takes `9e3` for text."""
    assert fleet(f"{{grpc: {{port: {text}}}}}").spec.grpc.port == 9000


@pytest.mark.parametrize("text", ["'9e3'", "9e", "e3", "9e3x"])
def test_what_only_looks_like_one_stays_text(text: str) -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.grpc\.port"):
        fleet(f"{{grpc: {{port: {text}}}}}")
