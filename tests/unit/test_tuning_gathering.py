"""Two real processes with unequal shares of a batch get the gradients of one with all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gloo_workers
import pytest
import torch

PROGRAM = Path(gloo_workers.__file__)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("workers")
    workers = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    found = {file.stem: torch.load(file) for file in folder.glob("*.pt")}
    return found | {"alone": gloo_workers.alone()}


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("task", "alone"),
    [
        ("contrastive", "contrastive"),
        ("contrastive kept", "contrastive"),
        ("contrastive sharded", "contrastive"),
        ("reranking", "reranking"),
        ("gathered", "gathered"),
    ],
)
def test_shares_give_the_gradients_of_the_whole(
    results: dict[str, Any], task: str, alone: str, rank: str
) -> None:
    loss, gradients = results[rank][task]
    expected_loss, expected = results["alone"][alone]
    assert abs(float(loss - expected_loss)) < TOLERANCE
    assert len(gradients) == len(expected) == 4
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float((mine - theirs).abs().max()) < TOLERANCE
    assert max(float(theirs.abs().max()) for theirs in expected) > 1e-2  # there is something
