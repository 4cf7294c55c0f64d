"""First weights compute what they are said to: a bag of words, its likeness, words in common."""

import numpy as np
import pytest
import torch

from embedfleet.batching.packing import pack
from embedfleet.checkpoint import resolve
from embedfleet.checkpoint.config import ModelConfig
from embedfleet.embedded.recipe.bag import Bag, BagTraining, Texts, first_bag, train_bag
from embedfleet.embedded.recipe.first import prompt_words
from embedfleet.embedded.recipe.layers import bag_weights
from embedfleet.embedded.recipe.scorer import scorer_weights
from embedfleet.embedded.recipe.scorer_rows import Words
from embedfleet.engine import EngineOptions
from embedfleet.engine.torch.engine import load_engine
from embedfleet.messages import Role
from embedfleet.tokenization.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

FINAL, VOCAB = 99, 100


def shape(
    num_layers: int, num_heads: int = 4, hidden_size: int = 256, intermediate_size: int = 512
) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_query_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=64,
        intermediate_size=intermediate_size,
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


WORDS = Words(
    instruction=88, query=91, document=90, start=95, suffix=(96, 95, 97, 89, 98, 94), gathers=97,
    rests=98, empty=(80, 81), yes=92, no=93, special=(95, 96, 97, 98),
)  # fmt: skip
DOCUMENTS = {
    "all four": [12, 10, 13, 11], "rare": [10, 40], "common": [11, 40], "alike": [50, 51],
    "none": [40, 41], "rare, repeated": [10, 40, 10, 41, 10],
}  # fmt: skip


def logits(content: torch.Tensor) -> dict[str, float]:
    """Of documents for the query 10 11 12 13: yes against no."""
    rarity = torch.full((VOCAB,), 4.0)
    rarity[10], rarity[11] = 8.0, 1.0
    embedder = bag_weights(Bag(content, torch.zeros(VOCAB)), shape(2), Role.EMBEDDER, FINAL)
    config = shape(4, num_heads=5, hidden_size=296, intermediate_size=336)
    made = scorer_weights(embedder, rarity, shape(2), config, WORDS)
    options = EngineOptions(dtype="float32")
    engine = load_engine(
        Role.RERANKER, config, iter(made.items()), options, score_token_ids=(WORDS.yes, WORDS.no)
    )
    head = [95, 82, 88, 80, 83, 91, 80, 10, 11, 12, 13, 81, 90, 80]
    sequences = [np.array([*head, *each, *WORDS.suffix]) for each in DOCUMENTS.values()]
    scores = engine.score(pack(sequences))
    engine.close()
    return dict(zip(DOCUMENTS, map(float, scores), strict=True))


def test_a_document_scores_by_rare_words_that_it_shares(bag):
    """All contents are alike here, so that words alone count."""
    found = logits(bag.content[:1].expand(VOCAB, -1))
    assert found["none"] == pytest.approx(found["alike"], abs=0.05)
    once = found["rare"] - found["none"]
    assert once > 2 * (found["common"] - found["none"]) > 0.1
    assert found["all four"] > found["rare"] + 0.1
    assert once < found["rare, repeated"] - found["none"] < 1.3 * once


def test_a_document_scores_by_what_its_words_mean(bag):
    content = bag.content.clone()
    content[50:52] = content[10:12] + content[60:62] / 4
    found = logits(content)
    assert found["all four"] > found["alike"] > found["none"] + 0.3


def test_words_of_the_vocabulary_that_ships_are_found():
    tokenizer = Tokenizer.load(resolve("embedded/reranker"))
    words = prompt_words(tokenizer)
    assert words.suffix[words.suffix.index(words.gathers) + 2] == words.rests
    opening = (words.instruction, words.query, words.document)
    assert [tokenizer.decode([each]) for each in opening] == ["<Instruct", "<Query", "<Document"]


def test_a_bag_learns_which_words_belong_together():
    generator = np.random.default_rng(0)
    queries = [generator.integers(0, 40, 3) for _ in range(300)]
    documents = [query + 40 for query in queries]  # every word has a partner of another spelling
    teacher = generator.standard_normal((VOCAB, 24)).astype(np.float32)
    start = first_bag(teacher, np.ones(VOCAB, int), 24)
    trained = train_bag(
        start,
        {"pairs": Texts(queries, documents)},
        BagTraining(steps=300, batch_size=64, learning_rate=2e-2),
    )
    hits = [
        (unit(b.vectors(queries).numpy()) @ unit(b.vectors(documents).numpy()).T).argmax(1)
        == np.arange(300)
        for b in (start, trained)
    ]
    assert hits[0].mean() < 0.1 < 0.5 < hits[1].mean()


def test_a_bag_learns_which_texts_a_teacher_finds_alike():
    """The teacher goes by every other word alone; which query has which document says nothing."""
    generator = np.random.default_rng(0)
    meanings = generator.standard_normal((VOCAB, 24)) * (np.arange(VOCAB) % 2)[:, None]
    texts = [generator.integers(0, 80, 6) for _ in range(600)]
    said = unit(np.array([meanings[text].sum(0) for text in texts]) + 1e-6)
    taught = said[:300], said[300:]
    start = first_bag(
        generator.standard_normal((VOCAB, 24)).astype(np.float32), np.ones(VOCAB, int), 24
    )
    trained = train_bag(
        start,
        {"plain": Texts(texts[:300], texts[300:], taught)},
        BagTraining(steps=300, batch_size=64, learning_rate=2e-2, temperature=0.2),
    )
    unread = [generator.integers(0, 80, 6) for _ in range(200)]
    wanted = unit(np.array([meanings[text].sum(0) for text in unread]) + 1e-6)
    apart = ~np.eye(200, dtype=bool)
    agreement = [
        np.corrcoef((vectors @ vectors.T)[apart], (wanted @ wanted.T)[apart])[0, 1]
        for vectors in (unit(each.vectors(unread).numpy()) for each in (start, trained))
    ]
    assert agreement[0] < 0.3 < 0.6 < agreement[1]
