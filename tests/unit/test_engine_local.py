"""Models without a server: order, unit length, steps and errors of the ten-line interface."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from embedfleet.engine import EngineOptions, load_embedder, load_reranker
from embedfleet.errors import InvalidRequest

OPTIONS = EngineOptions(device="cpu", dtype="float32", num_threads=1)
# Longest in the middle, so that sorting by length would show; more tokens than one step takes.
TEXTS = ["one", "a few more words", "many words " * 600, "two", "some words " * 300, "three"]


def test_vectors_come_back_in_order_at_unit_length() -> None:
    with load_embedder("embedded/embedder", options=OPTIONS) as embedder:
        together = embedder.embed(TEXTS * 4, "DOCUMENT", dimension=64)
        alone = np.concatenate([embedder.embed([t], "DOCUMENT", dimension=64) for t in TEXTS])
    assert together.shape == (24, 64)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together, np.tile(alone, (4, 1)), atol=1e-5)


def test_the_first_bad_text_is_named() -> None:
    with load_embedder("embedded/embedder", options=OPTIONS) as embedder:
        assert embedder.embed([], "DOCUMENT").shape == (0, embedder.engine.info.native_dimension)
        with pytest.raises(InvalidRequest, match=r"items\[1\]"):
            embedder.embed(["good", ""], "QUERY")
        with pytest.raises(InvalidRequest, match="dimension is 7"):
            embedder.embed(["good"], "QUERY", dimension=7)


def test_scores_come_back_in_order_as_probabilities() -> None:
    with load_reranker("embedded/reranker", options=OPTIONS) as reranker:
        together = reranker.score("which?", TEXTS)
        alone = np.concatenate([reranker.score("which?", [text]) for text in TEXTS])
    assert ((together > 0) & (together < 1)).all()
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, embedfleet.engine, embedfleet.engine.echo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["engine.torch.engine", "tuning.launching"])
def test_who_compiles_nothing_waits_for_no_compiler(module: str) -> None:
    """It takes as long to import as the rest of torch, at every start of a replica or worker."""
    code = f"import sys, embedfleet.{module}; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
