"""Which contracts are one vector space, and that the hash says so."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import pytest

from embedfleet.messages import Role
from embedfleet.resources.contract import Contract, contract_hash, contract_of
from embedfleet.resources.reranker import Template

HUB = Contract(
    source="Qwen/Qwen3-Embedding-0.6B",
    revision="b22da495047858cce924d27d76261e96be6febc0",
    weights_digest="a" * 64,
    tokenizer_digest="b" * 64,
    template="qwen3-embedding",
    pooling="last-token",
    normalization="l2",
    weight_quantization="bfloat16",
)


def test_hash_is_sha256_of_sorted_compact_json() -> None:
    canonical = (
        '{"normalization":"l2","pooling":"last-token",'
        '"revision":"b22da495047858cce924d27d76261e96be6febc0",'
        '"source":"Qwen/Qwen3-Embedding-0.6B","template":"qwen3-embedding",'
        f'"tokenizer_digest":"{"b" * 64}","weight_quantization":"bfloat16",'
        f'"weights_digest":"{"a" * 64}"}}'
    )
    expected = "v1:" + hashlib.sha256(canonical.encode()).hexdigest()[:32]
    assert contract_hash(HUB) == expected


def test_hash_of_a_known_contract_never_changes() -> None:
    # Indexes are stored with it: a new value here needs a new version letter.
    assert contract_hash(HUB) == "v1:065e34b292d34c4e193907b261e5f894"


@pytest.mark.parametrize(
    ("same", "why"),
    [
        (Contract(**{f.name: getattr(HUB, f.name) for f in reversed(fields(HUB))}), "key order"),
        (replace(HUB, source="qwen/qwen3-embedding-0.6b"), "hub names ignore case"),
        (
            contract_of(Role.EMBEDDER, HUB.source, HUB.revision, ("a" * 64, "b" * 64), "bfloat16"),
            "template, pooling and normalisation are the family's own",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_same_meaning_has_the_same_hash(same: Contract, why: str) -> None:
    assert contract_hash(same) == contract_hash(HUB)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("/models/a", "/srv/b", "digests identify local files, wherever they lie"),
        ("/models/a", "file:///models/a", "two spellings of one folder"),
        ("/models/a", "embedded/a", "the same bytes"),
    ],
)
def test_place_of_local_files_is_not_part_of_it(one: str, other: str, why: str) -> None:
    local = replace(HUB, revision="")
    assert contract_hash(replace(local, source=one)) == contract_hash(replace(local, source=other))


@pytest.mark.parametrize("field", [f.name for f in fields(Contract)])
def test_any_other_value_has_another_hash(field: str) -> None:
    assert contract_hash(replace(HUB, **{field: "other"})) != contract_hash(HUB)


def test_a_manifest_names_the_template_that_the_contract_hashes() -> None:
    contract = contract_of(Role.RERANKER, "/m", "", ("w", "t"), "float32")
    assert [str(template) for template in Template] == [contract.template] == ["qwen3-reranker"]


def test_values_do_not_run_into_each_other() -> None:
    one = replace(HUB, pooling="ab", normalization="c")
    other = replace(HUB, pooling="a", normalization="bc")
    assert contract_hash(one) != contract_hash(other)


def test_roles_are_different_spaces() -> None:
    hashes = {contract_hash(contract_of(role, "/m", "", ("w", "t"), "float32")) for role in Role}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"weight_quantization": "auto"}, "weight_quantization"),
        ({"source": "/models/a", "revision": "", "weights_digest": ""}, "weights_digest"),
        ({"source": "/models/a", "revision": "", "tokenizer_digest": ""}, "tokenizer_digest"),
    ],
)
def test_contract_that_identifies_nothing_has_no_hash(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        contract_hash(replace(HUB, **changed))
