"""Golden outputs as values: what is kept, what is refused, and how far off others are."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from embedfleet.errors import InvalidManifest
from embedfleet.golden import (
    GOLDEN_DOCUMENTS,
    GOLDEN_QUERY,
    GOLDEN_TEXTS,
    Golden,
    compare,
    drift,
    measured,
    refusal,
)
from embedfleet.golden.comparison import tau_b
from embedfleet.messages import InputType, Role

HASH, OTHER = f"v1:{'a' * 32}", f"v1:{'b' * 32}"
PLANE = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 0), (0, 1), (-1, 0), (0, -1)]
SCORES = [8.0, 4.0, 2.0, 1.0, 0.5, -1.0, -2.0, -4.0]


def rows(values: Any) -> dict[int, Any]:
    return {place: np.array(row, np.float32) for place, row in enumerate(values)}


def vectors(values: Any = PLANE, contract: str = HASH, instruction: str = "Find") -> Golden:
    return Golden.of(Role.EMBEDDER, contract, instruction, rows(values))


def scores(values: Any = SCORES, contract: str = HASH, instruction: str = "Find") -> Golden:
    return Golden.of(Role.RERANKER, contract, instruction, rows([(each,) for each in values]))


def test_the_set_is_the_one_that_the_version_stands_for() -> None:
    # Golden outputs are kept for years: another text needs another version.
    texts = [[text.input_type, text.text] for text in GOLDEN_TEXTS]
    whole = json.dumps([texts, GOLDEN_QUERY, GOLDEN_DOCUMENTS], ensure_ascii=False)
    assert vectors().version == 1
    digest = hashlib.sha256(whole.encode()).hexdigest()
    assert digest == "fa2d07d59ac7358f901dc578762b875d672a77e66fe18d801efb6b3ef4d8e5b0"


def test_the_set_is_half_queries_and_of_bounded_length() -> None:
    kinds = [text.input_type for text in GOLDEN_TEXTS]
    assert kinds.count(InputType.QUERY) == kinds.count(InputType.DOCUMENT) == 4
    assert len(GOLDEN_TEXTS) == len(GOLDEN_DOCUMENTS) == 8
    assert max(len(text.text.split()) for text in GOLDEN_TEXTS) < 110


def test_half_precision_keeps_the_direction() -> None:
    drawn = np.random.default_rng(7).standard_normal((8, 1024)).astype(np.float32)
    kept = vectors(drawn).decoded()
    for place, vector in enumerate(drawn.astype(np.float64)):
        prefix = vector[:256] / np.sqrt((vector[:256] ** 2).sum())
        assert kept[place].shape == (256,)
        assert float(prefix @ kept[place] / np.linalg.norm(kept[place])) > 0.99999


def test_scores_are_kept_to_the_last_bit() -> None:
    given = [0.1, -7.25, 3e-8, 12.5, 0.0, -0.0, 1e6, -3.3]
    kept = scores(given).decoded()
    assert [float(kept[place][0]) for place in range(8)] == [float(np.float32(x)) for x in given]


def test_text_is_small_and_reads_back() -> None:
    drawn = np.random.default_rng(7).standard_normal((8, 4096))
    golden = vectors(drawn)
    text = golden.to_json()
    assert len(text) < 6_000
    assert Golden.from_json(text, "golden.json") == golden
    assert set(json.loads(text)) == {
        "contractHash", "dimension", "instruction", "missing", "outputs", "role", "version",
    }  # fmt: skip


def test_what_a_model_had_no_room_for_is_left_out() -> None:
    given = rows(PLANE)
    del given[4], given[0]
    golden = Golden.of(Role.EMBEDDER, HASH, "Find", given)
    assert golden.missing == (0, 4)
    assert sorted(golden.decoded()) == [1, 2, 3, 5, 6, 7]
    assert golden.decoded()[5].tolist() == [0, 1]


def written(**changes: object) -> str:
    fields = json.loads(scores().to_json()) | changes
    return json.dumps({key: value for key, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[" * 60_000, "Invalid JSON"),
        ("x" * 70_000, "has 70,000 characters"),
        (written(version=2), "version is '2'"),
        (written(role="router"), "role is 'router'"),
        (written(role=None), "role: Field required"),
        (written(contractHash="abc"), "contractHash is 'abc'"),
        (written(contract_hash=HASH), "contract_hash"),
        (written(dimension=0), "dimension is '0'"),
        (written(dimension=2), "dimension is 2: a score has 1"),
        (written(missing=[8]), "missing.0 is '8'"),
        (written(missing=[1, 1]), "each place once"),
        (written(missing=list(range(8))), "missing"),
        (written(instruction=""), "instruction is ''"),
        (written(outputs="???"), "is not base64"),
        (written(outputs="AAAA"), "has 3 bytes; 8 of 1 components have 32"),
        (written(outputs="AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8="), "NaN"),
        (written(role="embedder", dimension=2), "unit length"),
        (written(more=1), "more is '1'"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_not_golden_outputs_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        Golden.from_json(text, "golden.json in ConfigMap docs-golden")
    assert said in str(refused.value)
    assert str(refused.value).startswith("golden.json in ConfigMap docs-golden")
    assert "`embedfleet golden`" in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Worked by hand: (pairs in order - pairs turned round) / sqrt(pairs untied in each).
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], (5 - 1) / 6),
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / (5 * 6) ** 0.5),
        ([1, 1, 2], [1, 2, 2], 1 / 2),
        ([1, 2, 3], [7, 7, 7], 0.0),
        ([7, 7, 7], [7, 7, 7], 1.0),
    ],
    ids=["same", "reversed", "one-swap", "tie", "other-ties", "lost-order", "nothing-but-ties"],
)
def test_rank_agreement(one: list[float], other: list[float], expected: float) -> None:
    assert tau_b(np.array(one, float), np.array(other, float)) == pytest.approx(expected)
    assert tau_b(np.array(other, float), np.array(one, float)) == pytest.approx(expected)


def test_worst_text_is_found() -> None:
    now = [*PLANE[:5], (3, 4), *PLANE[6:]]  # cosine of (0, 1) and (3, 4) is 4/5
    found = compare(vectors(), rows(now))
    assert (found.place, found.measure) == (5, pytest.approx(0.8))


def test_length_does_not_matter_and_common_components_do() -> None:
    wide = [(2.0 * x, 2.0 * y, 9.0) for x, y in PLANE]
    assert compare(vectors(), rows(wide)).measure == pytest.approx(1.0)


def test_scores_are_compared_by_order() -> None:
    shifted = [each + 3 for each in SCORES]
    found = compare(scores(), rows([(each,) for each in shifted]))
    assert (found.measure, found.difference) == (1.0, 3.0)
    swapped = [SCORES[1], SCORES[0], *SCORES[2:]]
    found = compare(scores(), rows([(each,) for each in swapped]))
    assert found.measure == pytest.approx((27 - 1) / 28)
    assert found.difference == 4.0


def test_a_refusal_of_an_embedder() -> None:
    found = compare(vectors(), rows([*PLANE[:5], (3, 4), *PLANE[6:]]))
    assert refusal(vectors(), HASH, found, 0.79) == ""
    said = refusal(vectors(), HASH, found, 0.99)
    assert said == (
        f"Golden outputs of {HASH} come out otherwise: worst cosine 0.8000 of golden text 5,"
        ' "A tidal mill works without a ri…", and spec.verification.minCosine is 0.99. Undo the'
        " change of backend, image, device or quantization, or give the new version another name."
    )
    assert measured(f"Serve says: {said}") == (0.8, "A tidal mill works without a ri…", None)


def test_a_refusal_of_a_reranker() -> None:
    found = compare(scores(), rows([(-each,) for each in SCORES]))
    said = refusal(scores(), HASH, found, 0.9)
    assert "rank agreement -1.0000, raw scores up to 16 apart" in said
    assert "spec.verification.minRankAgreement is 0.9" in said
    assert measured(said) == (None, None, -1.0)


def test_a_miss_is_never_rounded_up_to_the_bound() -> None:
    almost = [(1, 0.1425), *PLANE[1:]]  # cosine 0.98999
    assert "worst cosine 0.9899 of" in refusal(
        vectors(), HASH, compare(vectors(), rows(almost)), 0.99
    )


def test_another_contract_is_refused_however_near_it_is() -> None:
    said = refusal(vectors(), OTHER, compare(vectors(), rows(PLANE)), 0.5)
    assert said.startswith(f"The contract is {OTHER}, but golden outputs are of {HASH}")
    assert measured(said).worst_cosine == 1.0


@pytest.mark.parametrize(
    ("golden", "kept", "field"), [(vectors(), {}, "maxTokens"), (scores(), {0}, "maxPairTokens")]
)
def test_what_cannot_be_compared_is_refused(golden: Golden, kept: Any, field: str) -> None:
    now = {place: row for place, row in golden.decoded().items() if place in kept}
    assert f"spec.{field}" in refusal(golden, HASH, compare(golden, now), 0.0)


@pytest.mark.parametrize("place", range(8))
def test_every_text_can_be_read_back_from_a_refusal(place: int) -> None:
    turned = [(-x, -y) if at == place else (x, y) for at, (x, y) in enumerate(PLANE)]
    said = refusal(vectors(), HASH, compare(vectors(), rows(turned)), 0.99)
    assert "\n" not in said
    found = measured(said)
    assert found.worst_cosine == -1.0
    beginning = " ".join(GOLDEN_TEXTS[place].text.split())
    assert found.worst_text is not None
    assert beginning.startswith(found.worst_text.rstrip("…"))


QUERIES_TURNED = [
    (-x, -y) if text.input_type is InputType.QUERY else (x, y)
    for (x, y), text in zip(PLANE, GOLDEN_TEXTS, strict=True)
]


@pytest.mark.parametrize(
    ("golden", "served", "said"),
    [
        (vectors(), vectors(), ""),
        (vectors(), vectors([(3, 4), *PLANE[1:]]), "worst cosine 0.6"),
        (vectors(), vectors(contract=OTHER), "The contract is"),
        (vectors(), vectors(QUERIES_TURNED), "worst cosine -1.0"),
        (vectors(), vectors(QUERIES_TURNED, instruction="Other"), ""),
        (scores(), scores([-each for each in SCORES]), "rank agreement -1.0"),
        (scores(), scores([-each for each in SCORES], instruction="Other"), ""),
    ],
    ids=["same", "drifted", "contract", "queries", "queries-otherwise-asked", "scores",
         "scores-otherwise-asked"],
)  # fmt: skip
def test_what_replicas_would_say_is_foreseen(golden: Golden, served: Golden, said: str) -> None:
    found = drift(golden, served, 0.9)
    assert (said in found) if said else (found == "")
