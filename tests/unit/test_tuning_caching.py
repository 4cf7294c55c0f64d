"""Cached gradients are those of the whole batch at once, dropout included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from embedfleet.tuning.caching import Caching, cached_step
from embedfleet.tuning.losses import Contrast, ContrastiveSettings, contrastive_loss

INPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Rows:
    rows: Tensor


def parts(*groups: list[int]) -> list[Rows]:
    return [Rows(torch.tensor(group)) for group in groups]


UNEVEN = parts([11, 3], [0, 7, 8, 1, 2], [6], [5, 4, 10, 9])
WHOLE = parts(list(range(12)))


def model(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 6))


def loss(vectors: Tensor) -> Tensor:
    return contrastive_loss(Contrast(vectors[:6], vectors[6:]), ContrastiveSettings(0.1))


def step(
    net: nn.Module,
    given: list[Rows],
    caching: Caching | None = None,
    calls: list[bool] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    def encode(part: Rows) -> Tensor:
        if calls is not None:
            calls.append(torch.is_grad_enabled())
        result: Tensor = net(INPUTS[part.rows])
        return result

    net.zero_grad()
    torch.manual_seed(2)
    value = cached_step(encode, given, loss, caching)
    return value, [p.grad.clone() for p in net.parameters() if p.grad is not None]


def assert_same(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], atol=1e-6, rtol=1e-5)
    assert len(one[1]) == len(other[1]) == 4
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-5
        assert theirs.any()


@pytest.mark.parametrize(
    "caching",
    [Caching(), Caching(cached=False), Caching(passes=7), Caching(cached=False, passes=7)],
    ids=["cached", "kept", "cached-repeated", "kept-repeated"],
)
def test_parts_give_the_gradients_of_the_whole(caching: Caching) -> None:
    net = model()
    plain = loss(net(INPUTS))
    plain.backward()
    expected = plain.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert_same(step(net, UNEVEN, caching), expected)
    assert_same(step(net, WHOLE, caching), expected)


def test_dropout_is_the_same_in_both_passes() -> None:
    net = model(dropout=0.5)
    kept = step(net, UNEVEN, Caching(cached=False))
    cached = step(net, UNEVEN)
    assert_same(cached, kept)
    # It does drop: without it, the loss is another one.
    assert abs(float(step(net.eval(), UNEVEN)[0] - kept[0])) > 0.01


def test_random_numbers_go_on_as_after_one_pass() -> None:
    net = model(dropout=0.5)
    after = []
    for caching in (Caching(), Caching(cached=False)):
        step(net, UNEVEN, caching)
        after.append(torch.rand(3))
    torch.testing.assert_close(*after)


@pytest.mark.parametrize(
    ("given", "caching", "graphs"),
    [
        (WHOLE, Caching(), [True]),  # fits at once: nothing to save
        (UNEVEN, Caching(), [False] * 4 + [True] * 4),
        (UNEVEN, Caching(cached=False), [True] * 4),
        (WHOLE, Caching(passes=2), [False] * 2 + [True] * 2),
    ],
)
def test_no_more_passes_than_needed(
    given: list[Rows], caching: Caching, graphs: list[bool]
) -> None:
    calls: list[bool] = []
    step(model(), given, caching, calls)
    assert calls == graphs


def test_gradients_add_up_over_steps() -> None:
    net = model()
    once = step(net, UNEVEN)[1]
    cached_step(lambda part: net(INPUTS[part.rows]), UNEVEN, loss)
    for parameter, first in zip(net.parameters(), once, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 2 * first)


class Exchanging(nn.Sequential):
    """Notes, as the graph is walked back, whether gradients would be exchanged."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.quiet = False
        self.exchanged: list[bool] = []

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.quiet = True
        yield
        self.quiet = False

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: self.exchanged.append(not self.quiet))
        return outputs


def test_gradients_are_exchanged_with_the_last_part_only() -> None:
    net = Exchanging(model())
    step(net, UNEVEN, Caching(module=net))
    assert net.exchanged == [False, False, False, True]


def test_half_precision_vectors_and_scores_of_one_number() -> None:
    net = model()

    def encode(part: Rows) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores: Tensor = net(INPUTS[part.rows])[:, 0]
        return scores

    for caching in (Caching(), Caching(cached=False)):
        value = cached_step(encode, UNEVEN, lambda s: s.float().square().mean(), caching)
        assert value.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_loss_that_is_not_finite_is_given_back() -> None:
    net = model()
    assert step(net, UNEVEN)[0].isfinite()
    value = cached_step(lambda part: net(INPUTS[part.rows]) * torch.nan, UNEVEN, loss)
    assert value.isnan()
    assert not value.requires_grad
