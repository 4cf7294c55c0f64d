"""The losses of training against loops written from the formulas, differences and cases by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.losses import (
    Contrast,
    ContrastiveSettings,
    Pool,
    contrastive_loss,
    document_ids,
    matryoshka_loss,
    reranking_loss,
)

SETTINGS = ContrastiveSettings(temperature=0.2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(n: int, k: int, d: int, seed: int = 0, spread: float = 1.0) -> Contrast:
    """Draw rows in float64; a small spread makes them so alike that masks fire."""
    generator = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        noise = torch.randn(*shape, d, generator=generator, dtype=torch.float64)
        return (1 + spread * noise).requires_grad_()

    mask = torch.rand(n, k, generator=generator) < 0.7 if k else None
    ids = torch.randint(0, max(2, n // 2), (n,), generator=generator)
    return Contrast(rows(n), rows(n), rows(n, k) if k else None, mask, ids)


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def slow_loss(
    vectors: Contrast, tau: float, margin: float, dimension: int | None = None
) -> tuple[float, int]:
    """Sum the formula of arXiv 2506.05176 term by term; also count what the mask took out."""
    q = [row[:dimension] for row in vectors.queries.tolist()]
    d = [row[:dimension] for row in vectors.positives.tolist()]
    ids = list(range(len(q))) if vectors.document_ids is None else vectors.document_ids.tolist()
    total, masked = 0.0, 0
    for i in range(len(q)):
        positive = cosine(q[i], d[i])
        z = math.exp(positive / tau)

        def m(s: float, same: bool = False, positive: float = positive) -> int:
            return 0 if s > positive + margin or same else 1

        hard = [] if vectors.negatives is None else vectors.negatives[i].tolist()
        for k, negative in enumerate(hard):
            if vectors.negative_mask is None or bool(vectors.negative_mask[i, k]):
                s = cosine(q[i], negative[:dimension])
                z += m(s) * math.exp(s / tau)
                masked += 1 - m(s)
        for j in range(len(q)):
            if j != i:
                for s in (cosine(q[i], q[j]), cosine(d[i], d[j]), cosine(q[i], d[j])):
                    z += m(s, ids[i] == ids[j]) * math.exp(s / tau)
                    masked += 1 - m(s, ids[i] == ids[j])
        total -= math.log(math.exp(positive / tau) / z)
    return total / len(q), masked


@pytest.mark.parametrize(
    ("n", "k", "spread", "fires"),
    [
        (1, 0, 1.0, False),  # nothing but the positive: the loss is zero
        (1, 3, 1.0, None),
        (2, 0, 1.0, None),
        (5, 2, 1.0, True),
        (8, 3, 0.3, True),  # alike: many false negatives
        (9, 1, 3.0, True),
    ],
)
@pytest.mark.parametrize("dimension", [None, 3])
def test_the_loss_is_the_formula(
    n: int, k: int, spread: float, fires: bool | None, dimension: int | None
) -> None:
    for seed in range(5):
        vectors = drawn(n, k, 6, seed, spread)
        expected, masked = slow_loss(vectors, 0.2, 0.1, dimension)
        if dimension is None:
            found = contrastive_loss(vectors, SETTINGS)
        else:
            found = matryoshka_loss(vectors, SETTINGS, {dimension: 0.5})
        assert found.item() == pytest.approx(expected, abs=1e-12)
        assert fires is None or (masked > 0) == fires


def test_gradients_are_finite_differences() -> None:
    vectors = drawn(4, 2, 5, seed=3)
    assert vectors.negatives is not None

    def loss(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        given = Contrast(queries, positives, negatives, vectors.negative_mask, vectors.document_ids)
        return matryoshka_loss(given, SETTINGS, {5: 1.0, 3: 0.5})

    given = (vectors.queries, vectors.positives, vectors.negatives)
    assert torch.autograd.gradcheck(loss, given)


# Angles in degrees on a circle; tau 1, margin 0.1. The positive of row 0 is 60 degrees away: s 0.5.
def circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], -1)


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def row_0(*terms: float) -> float:
    """-log(e^0.5 / Z) with the given similarities in Z beside the positive's."""
    return math.log(math.exp(0.5) + sum(map(math.exp, terms))) - 0.5


@pytest.mark.parametrize(
    ("query", "document", "ids", "kept"),
    [
        (180.0, 270.0, (1, 2), (cos(180), cos(210), cos(270))),  # all far: nothing is masked
        (20.0, 270.0, (1, 2), (cos(210), cos(270))),  # q_j is too near q_i
        (180.0, 90.0, (1, 2), (cos(180), cos(90))),  # d_j is too near d_i: 30 degrees
        (180.0, 330.0, (1, 2), (cos(180), cos(270))),  # d_j is too near q_i: 30 degrees
        (180.0, 270.0, (7, 7), ()),  # d_j is d_i: the whole row of the mask
        (180.0, 300.0, (1, 2), (cos(180), cos(240), cos(300))),  # 0.5 is within 0.5 + 0.1
        (53.0, 270.0, (1, 2), (cos(210), cos(270))),  # 0.602 is not
        (53.2, 270.0, (1, 2), (cos(53.2), cos(210), cos(270))),  # 0.599 is
    ],
)
def test_masks_fire_where_they_must(
    query: float, document: float, ids: tuple[int, int], kept: tuple[float, ...]
) -> None:
    both = Pool(circle(0, query), circle(60, document), torch.tensor(ids))
    own = Contrast(circle(0), circle(60), document_ids=torch.tensor(ids[:1]))
    found = contrastive_loss(own, ContrastiveSettings(1.0), both)
    assert found.item() == pytest.approx(row_0(*kept), abs=1e-12)


@pytest.mark.parametrize(
    ("degrees", "there", "same", "kept"),
    [
        (120.0, True, False, (cos(120),)),
        (50.0, True, False, ()),  # 0.643: nearer than the positive by more than the margin
        (56.0, True, False, (cos(56),)),  # 0.559: nearer, within the margin
        (120.0, False, False, ()),  # only fills the row up
        (60.0, True, True, ()),  # is the positive
    ],
)
def test_masks_of_hard_negatives(
    degrees: float, there: bool, same: bool, kept: tuple[float, ...]
) -> None:
    vectors = Contrast(
        circle(0),
        circle(60),
        circle(degrees)[None],
        torch.tensor([[there]]),
        torch.tensor([5]),
        torch.tensor([[5 if same else 6]]),
    )
    found = contrastive_loss(vectors, ContrastiveSettings(1.0))
    assert found.item() == pytest.approx(row_0(*kept), abs=1e-12)


def test_the_margin_is_the_settings() -> None:
    vectors = Contrast(circle(0), circle(60), circle(50)[None])
    found = contrastive_loss(vectors, ContrastiveSettings(1.0, margin=0.2))
    assert found.item() == pytest.approx(row_0(cos(50)), abs=1e-12)


def test_a_batch_of_one_without_negatives_has_nothing_to_learn() -> None:
    vectors = drawn(1, 0, 4)
    loss = contrastive_loss(vectors, SETTINGS)
    loss.backward()
    assert loss.item() == 0
    assert vectors.queries.grad is not None
    assert not vectors.queries.grad.any()


def test_rows_of_a_pool_make_the_whole() -> None:
    vectors = drawn(7, 2, 5, seed=2, spread=0.5)
    pool = vectors.pool()
    parts = []
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        rows = vectors.rows(start, stop)
        there = Pool(pool.queries, pool.positives, pool.document_ids, first_row=start)
        parts.append(contrastive_loss(rows, SETTINGS, there).item() * (stop - start))
    assert sum(parts) / 7 == pytest.approx(contrastive_loss(vectors, SETTINGS).item(), abs=1e-12)


def test_a_batch_that_is_computed_in_blocks() -> None:
    # 2,100 rows need two blocks; a loss in one piece is the reference.
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2100, 4, generator=generator).requires_grad_() for _ in range(2)]
    contrastive_loss(Contrast(*drawn), SETTINGS).backward()
    q, d = (torch.nn.functional.normalize(each.detach().double(), dim=-1) for each in drawn)
    q.requires_grad_()
    own = (q * d).sum(-1)
    rest = torch.stack([q @ q.T, d @ d.T, q @ d.T])
    apart = (rest <= own[:, None] + 0.1) & ~torch.eye(2100, dtype=torch.bool)
    z = (own / 0.2).exp() + ((rest / 0.2).exp() * apart).sum((0, 2))
    (z.log() - own / 0.2).mean().backward()
    # From unit length to the vector's own.
    assert q.grad is not None
    along = (q.grad * q).sum(-1, keepdim=True) * q
    expected = (q.grad - along) / drawn[0].detach().double().norm(dim=-1, keepdim=True)
    assert drawn[0].grad is not None
    torch.testing.assert_close(drawn[0].grad.double(), expected, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    wide = drawn(6, 2, 8, seed=4)
    assert wide.negatives is not None
    half = [each.detach().to(dtype) for each in (wide.queries, wide.positives, wide.negatives)]
    exact = Contrast(*(each.double() for each in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_loss(Contrast(*half), SETTINGS)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(contrastive_loss(exact, SETTINGS).item(), rel=1e-6)


def test_low_temperatures_do_not_overflow() -> None:
    vectors = Contrast(circle(0, 90).float(), circle(180, 270).float())
    found = contrastive_loss(vectors, ContrastiveSettings(0.001, margin=2))
    # Row 0: positive -1; q-q 0, d-d 0, q-d 0. Row 1 is the same.
    assert found.item() == pytest.approx(1000 + math.log(3), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["queries", "positives", "negatives"])
def test_what_is_not_finite_shows_in_the_loss(bad: float, field: str) -> None:
    vectors = drawn(3, 1, 4)
    rows = Contrast(vectors.queries, vectors.positives, vectors.negatives)
    with torch.no_grad():
        getattr(rows, field)[1] = bad
    assert not torch.isfinite(contrastive_loss(rows, SETTINGS))


def test_several_dimensions_are_a_weighted_mean() -> None:
    vectors = drawn(5, 2, 6, seed=1)
    parts = {d: slow_loss(vectors, 0.2, 0.1, d)[0] for d in (2, 4, 6)}
    found = matryoshka_loss(vectors, SETTINGS, {2: 1.0, 4: 1.0, 6: 2.0}).item()
    assert found == pytest.approx((parts[2] + parts[4] + 2 * parts[6]) / 4, abs=1e-12)


@pytest.mark.parametrize(
    ("dimensions", "said"),
    [
        ({7: 1.0}, "dimension 7 .* 1 to 6 components"),
        ({0: 1.0}, "dimension 0"),
        ({2: -1.0}, "weights are not negative"),
        ({2: 0.0}, "no weight above zero"),
        ({}, "no weight above zero"),
    ],
)
def test_dimensions_that_vectors_have_not(dimensions: dict[int, float], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        matryoshka_loss(drawn(2, 0, 6), SETTINGS, dimensions)


def test_the_same_text_has_the_same_number() -> None:
    found = document_ids(["caf\u00e9", "cafe\u0301", " caf\u00e9\n", "cafe", ""]).tolist()
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3
    # On every worker and machine, so it is part of no process's secret.
    assert document_ids(["a"]).tolist() == [3405396810240292928]
    assert document_ids([]).shape == (0,)


ANSWERS = [[0.3, -1.2], [5.0, 5.0], [-80.0, 90.0], [2000.0, -2000.0], [-0.7, 0.1]]


@pytest.mark.parametrize("labels", [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]])
def test_reranking_is_the_log_softmax_over_no_and_yes(labels: list[int]) -> None:
    both = torch.tensor(ANSWERS, dtype=torch.float64, requires_grad=True)
    rows = torch.arange(len(labels))
    expected = -torch.log_softmax(both, -1)[rows, labels].mean()
    (gradient,) = torch.autograd.grad(expected, both)
    labelled = torch.tensor(labels)
    for given in (both, both[:, 1] - both[:, 0]):
        for answers in (labelled, labelled.bool()):
            found = reranking_loss(given, answers)
            assert found.item() == pytest.approx(expected.item(), rel=1e-12)
            torch.testing.assert_close(
                torch.autograd.grad(found, both, retain_graph=True)[0], gradient
            )
    assert reranking_loss(both.detach().bfloat16(), labelled).dtype == torch.float32


def test_reranking_by_finite_differences() -> None:
    log_odds = torch.tensor([-3.0, 0.0, 0.4, 7.0], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 0, 1, 0])
    assert torch.autograd.gradcheck(lambda given: reranking_loss(given, labels), (log_odds,))
