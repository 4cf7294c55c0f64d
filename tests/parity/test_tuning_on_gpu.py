"""Losses and cached gradients on a CUDA device: those of the CPU, dropout's numbers included."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from embedfleet.tuning.caching import Caching, cached_step
from embedfleet.tuning.losses import Contrast, ContrastiveSettings, contrastive_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

SETTINGS = ContrastiveSettings(temperature=0.05)


@dataclass(frozen=True)
class Rows:
    rows: Tensor


def test_the_loss_is_that_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(4096, 256, generator=generator) for _ in range(2)]
    exact = [each.double().requires_grad_() for each in drawn]
    expected = contrastive_loss(Contrast(*exact), SETTINGS)
    expected.backward()
    given = [each.cuda().requires_grad_() for each in drawn]
    with torch.autocast("cuda", torch.bfloat16):
        found = contrastive_loss(Contrast(*given), SETTINGS)
    found.backward()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for mine, theirs in zip(given, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        scale = float(theirs.grad.abs().max())
        assert float((mine.grad.cpu().double() - theirs.grad).abs().max()) < 1e-4 * scale


def test_dropout_is_the_same_in_both_passes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 32)).cuda()
    inputs = torch.randn(64, 16, device="cuda")
    parts = [Rows(rows.cuda()) for rows in torch.randperm(64).split(11)]

    def loss(vectors: Tensor) -> Tensor:
        return contrastive_loss(Contrast(vectors[:32], vectors[32:]), SETTINGS)

    gradients, after = [], []
    for caching in (Caching(), Caching(cached=False)):
        net.zero_grad()
        torch.manual_seed(1)
        cached_step(lambda part: net(inputs[part.rows]), parts, loss, caching)
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        after.append(torch.rand(3, device="cuda"))
    for cached, kept in zip(*gradients, strict=True):
        assert float((cached - kept).abs().max()) < 1e-5
    torch.testing.assert_close(*after)
