"""What a ranking says when documents fail, whatever was asked for."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedfleet.checkpoint import resolve
from embedfleet.engine.base import EngineInfo
from embedfleet.errors import NonFiniteResult
from embedfleet.messages import RerankOptions, Role
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.resources.contract import contract_of
from embedfleet.runtime import LoadedModel, RerankerRuntime
from embedfleet.tokenization import Tokenizer


class Scores:
    """An engine whose scores are a function of a sequence's first token."""

    def __init__(self, score) -> None:
        self._score = score
        self.info = EngineInfo(Role.RERANKER, "cpu", "float32", {}, 0, 8, 512, parallel=True)

    def score(self, batch, yield_point=None):
        starts = batch.cu_seqlens[batch.num_prefixes : -1]
        scores = np.array([self._score(int(batch.token_ids[i])) for i in starts], np.float32)
        if not np.isfinite(scores).all():
            raise NonFiniteResult("a score is not finite.")
        return scores

    def close(self):
        pass


@asynccontextmanager
async def reranker(score):
    arguments = ReplicaArguments(name="r", role=Role.RERANKER, source="embedded/reranker")
    tokenizer = Tokenizer.load(resolve(arguments.source))
    contract = contract_of(arguments.role, arguments.source, "", ("w", "t"), "float32")
    model = LoadedModel(arguments, Scores(score(tokenizer)), tokenizer, contract, "v1:0", 512)
    runtime = RerankerRuntime(model, ReplicaSettings())
    runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close()


def all_nan(tokenizer):
    return lambda token: float("nan")


def nan_for_bad(tokenizer):
    bad = int(tokenizer.encode(" bad")[0])
    return lambda token: float("nan") if token == bad else float(token)


async def test_a_request_whose_documents_all_fail_tells_each():
    async with reranker(all_nan) as runtime:
        result = await runtime.rerank("q", ["a", "b"], RerankOptions())
    assert [type(o.error) for o in result.outcomes] == [NonFiniteResult] * 2
    assert result.num_failed == 2


@pytest.mark.parametrize("top_n", [1, 2, None])
async def test_a_failure_is_told_whatever_the_cut(top_n):
    async with reranker(nan_for_bad) as runtime:
        documents = ["one", "bad", None, "two", "three"]
        result = await runtime.rerank("q", documents, RerankOptions(top_n=top_n))
    scored = [o for o in result.outcomes if o.error is None]
    assert len(scored) == (top_n or 3)
    assert [o.index for o in result.outcomes if o.error is not None] == [1, 2]
    assert [o.score for o in scored] == sorted((o.score for o in scored), reverse=True)
    assert result.num_documents == 5
    assert result.num_failed == 2


def log_odds_of(**by_word):
    def score(tokenizer):
        values = {int(tokenizer.encode(f" {word}")[0]): odds for word, odds in by_word.items()}
        return values.__getitem__

    return score


@pytest.mark.parametrize("raw_scores", [False, True])
@pytest.mark.parametrize(
    ("one", "two", "three"),
    [
        pytest.param(38.0, 45.0, 40.0, id="all 1.0 in float64"),
        pytest.param(17.5, 18.5, 18.0, id="all 1.0 on the wire, in float32"),
        pytest.param(-800.0, -750.0, -760.0, id="all 0.0"),
        pytest.param(-1.0, 2.0, 0.5, id="apart"),
    ],
)
async def test_documents_are_ranked_by_log_odds(one, two, three, raw_scores):
    async with reranker(log_odds_of(one=one, two=two, three=three)) as runtime:
        documents = ["one", "two", "three"]
        whole = await runtime.rerank("q", documents, RerankOptions(raw_scores=raw_scores))
        best = await runtime.rerank("q", documents, RerankOptions(raw_scores=raw_scores, top_n=1))
    assert [o.index for o in whole.outcomes] == [1, 2, 0]
    assert [o.index for o in best.outcomes] == [1]
    wanted = two if raw_scores else math.exp(min(two, 0.0)) / (1 + math.exp(-abs(two)))
    assert best.outcomes[0].score == pytest.approx(wanted, rel=1e-12)
