"""First weights compute what they are said to: a weighted bag of words, and products of two."""

import numpy as np
import pytest
import torch

from embedfleet.batching.packing import pack
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.embedded.recipe.bag import Bag, BagTraining, first_bag, train_bag
from embedfleet.embedded.recipe.layers import bag_weights
from embedfleet.embedded.recipe.scorer import Words, scorer_weights
from embedfleet.engine import EngineOptions
from embedfleet.engine.torch.engine import load_engine
from embedfleet.messages import Role

FINAL, VOCAB = 99, 100


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Operations this small wait for other threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shape(num_layers: int) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        hidden_size=256,
        num_query_heads=4,
        num_kv_heads=4,
        head_dim=64,
        intermediate_size=512,
        vocab_size=VOCAB,
        max_tokens=512,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tied_lm_head=True,
    )


@pytest.fixture(scope="module")
def bag() -> Bag:
    generator = torch.Generator().manual_seed(3)
    return Bag(
        torch.randn(VOCAB, 254, generator=generator), torch.randn(VOCAB, generator=generator) / 2
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_model_is_the_bag(bag):
    """The mean is written out here in float64, each part from its formula."""
    texts = [np.array([5]), np.array([7, 8, 9, 8]), np.arange(1, 90)]
    rows = np.concatenate([bag.content, bag.importance[:, None], np.ones((VOCAB, 1))], 1)
    rows = rows.astype(np.float64) / np.sqrt((rows**2).mean(1, keepdims=True))
    importance = bag.importance.numpy().astype(np.float64)
    weights = np.exp(6.0 * importance / np.sqrt(1 + importance**2))
    expected = [np.average(rows[text, :254], 0, weights[text]) for text in texts]
    np.testing.assert_allclose(
        unit(bag.vectors(texts).numpy()), unit(np.array(expected)), atol=1e-5
    )

    made = bag_weights(bag, shape(2), Role.EMBEDDER, FINAL)
    engine = load_engine(
        Role.EMBEDDER, shape(2), iter(made.items()), EngineOptions(dtype="float32")
    )
    states = engine.embed(pack([np.append(text, FINAL) for text in texts]))[:, :254]
    engine.close()
    # Noise in keys lets layers learn apart; it costs this much.
    assert (unit(states) * unit(np.array(expected))).sum(1).min() > 0.98


def test_documents_that_share_words_with_the_query_score_higher(bag):
    words = Words(document=90, query=91, start=95, yes=92, no=93, last=94, special=(95,))
    made = scorer_weights(bag, shape(3), words)
    options = EngineOptions(dtype="float32")
    engine = load_engine(
        Role.RERANKER, shape(3), iter(made.items()), options, score_token_ids=(92, 93)
    )
    query, same, other = [10, 11, 12, 13], [12, 10, 13, 11], [40, 41, 42, 43]
    half = [10, 11, 44, 45]
    sequences = [
        np.array([95, 80, 81, 91, *query, 82, 90, *document, 95, 94])
        for document in (same, half, other)
    ]
    scores = engine.score(pack(sequences))
    engine.close()
    assert scores[0] > scores[1] > scores[2]
    assert scores[0] > 0 > scores[2]


def test_a_bag_learns_which_words_belong_together():
    generator = np.random.default_rng(0)
    queries = [generator.integers(0, 40, 3) for _ in range(300)]
    documents = [query + 40 for query in queries]  # every word has a partner of another spelling
    teacher = generator.standard_normal((VOCAB, 24)).astype(np.float32)
    start = first_bag(teacher, np.ones(VOCAB, int), 24)
    trained = train_bag(
        start,
        {"pairs": (queries, documents)},
        BagTraining(steps=300, batch_size=64, learning_rate=2e-2),
    )
    hits = [
        (unit(b.vectors(queries).numpy()) @ unit(b.vectors(documents).numpy()).T).argmax(1)
        == np.arange(300)
        for b in (start, trained)
    ]
    assert hits[0].mean() < 0.1 < 0.5 < hits[1].mean()
