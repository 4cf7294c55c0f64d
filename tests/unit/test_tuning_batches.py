"""Examples to token ids and micro-batches: what serving would read, and little padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import write_examples

from embedfleet.checkpoint import resolve
from embedfleet.errors import InvalidRequest
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, RerankOptions
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX, query_head
from embedfleet.tokenization import EmbeddingTokenizer, RerankingTokenizer, Tokenizer
from embedfleet.tuning.batches import ContrastiveRows, PairRows, Share, micro_batches
from embedfleet.tuning.corpus import Corpus, index_corpus
from embedfleet.tuning.drawing import EmbedderBatches, RerankerBatches, Source
from embedfleet.tuning.sampling import plan_batches
from embedfleet.tuning.sections import EmbedderSequence, RerankerSequence
from embedfleet.tuning.settings import EmbedderSettings

EMBEDDER = Tokenizer.load(resolve("embedded/embedder"))
RERANKER = Tokenizer.load(resolve("embedded/reranker"))


def source(tmp_path: Path, share: Share | None = None, size: int = 6, **more: Any) -> Source:
    return read_source(write_examples(tmp_path / "data.jsonl", 24, **more), share, size)


def read_source(file: Path, share: Share | None = None, size: int = 6) -> Source:
    settings = EmbedderSettings.model_validate_json(
        json.dumps(
            {
                "model": {"source": "m"},
                "output": {"folder": "o"},
                "data": [{"path": str(file)}],
                "schedule": {"steps": 8},
                "batch": {"size": size},
            }
        ),
        by_alias=True,
    )
    corpus: Corpus = index_corpus(settings.data)
    return Source(corpus, plan_batches(corpus, settings), share or Share(), 0)


def test_an_embedder_reads_in_training_what_it_reads_in_service(tmp_path: Path) -> None:
    drawn = source(tmp_path, instruction="Find words")
    batch = EmbedderBatches(drawn, EmbedderSequence(), EMBEDDER, 32_768).batch(2)
    rows = batch.rows
    assert isinstance(rows, ContrastiveRows)
    examples = drawn.corpus.read(batch.corpus_rows)
    serving = EmbeddingTokenizer(EMBEDDER, 32_768)
    asked = serving(
        [EmbedItem(text=each.query) for each in examples],
        EmbedOptions(InputType.QUERY, instruction="Find words"),
        "unused",
    )
    given = serving(
        [EmbedItem(text=each.positives[0]) for each in examples],
        EmbedOptions(InputType.DOCUMENT),
        "unused",
    )
    for sequence, expected in zip(batch.sequences, [*asked, *given], strict=False):
        assert sequence.tolist() == expected.token_ids.tolist()
    # And in words: the prompt of the model card, and its one final token.
    first = batch.sequences[0].tolist()
    assert EMBEDDER.decode(first[:-1]) == query_head("Find words") + examples[0].query
    assert first[-1] == EMBEDDER.final_token_id


def test_negatives_are_where_the_rows_say(tmp_path: Path) -> None:
    drawn = source(tmp_path)
    batch = EmbedderBatches(drawn, EmbedderSequence(), EMBEDDER, 32_768).batch(0)
    rows = batch.rows
    assert isinstance(rows, ContrastiveRows)
    for place, example in enumerate(drawn.corpus.read(batch.corpus_rows)):
        found = [
            EMBEDDER.decode(batch.sequences[index][:-1])
            for index, there in zip(
                rows.negatives[place].tolist(), rows.negative_mask[place].tolist(), strict=True
            )
            if there
        ]
        assert tuple(found) == example.negatives
    assert len(batch.sequences) == 12 + int(rows.negative_mask.sum())


def test_no_negatives_leave_none(tmp_path: Path) -> None:
    batches = EmbedderBatches(source(tmp_path), EmbedderSequence(negatives=0), EMBEDDER, 32_768)
    rows = batches.batch(0).rows
    assert isinstance(rows, ContrastiveRows)
    assert rows.negatives.shape == rows.negative_ids.shape == (6, 0)


def test_same_texts_have_same_numbers_and_a_limit_cuts_the_end(tmp_path: Path) -> None:
    drawn = source(tmp_path, positives=["the same long text " * 9])
    batches = EmbedderBatches(drawn, EmbedderSequence(max_document_tokens=8), EMBEDDER, 32_768)
    batch = batches.batch(0)
    rows = batch.rows
    assert isinstance(rows, ContrastiveRows)
    assert len(set(rows.document_ids.tolist())) == 1
    assert batch.num_truncated >= 6
    positive = batch.sequences[6]
    assert len(positive) == 8
    assert positive[-1] == EMBEDDER.final_token_id


def test_workers_share_out_what_one_would_do(tmp_path: Path) -> None:
    alone = EmbedderBatches(source(tmp_path), EmbedderSequence(), EMBEDDER, 32_768).batch(3)
    queries: list[list[int]] = []
    for rank in range(3):
        part = source(tmp_path, Share(rank, 3))
        batch = EmbedderBatches(part, EmbedderSequence(), EMBEDDER, 32_768).batch(3)
        assert isinstance(batch.rows, ContrastiveRows)
        assert batch.rows.num_queries == 2
        assert batch.corpus_rows.tolist() == alone.corpus_rows.tolist()
        queries += [each.tolist() for each in batch.sequences[:2]]
    assert queries == [each.tolist() for each in alone.sequences[:6]]


def test_a_reranker_reads_whole_prompts_of_every_pair(tmp_path: Path) -> None:
    drawn = source(tmp_path)
    sequence = RerankerSequence(negatives=3)
    batch = RerankerBatches(drawn, sequence, RERANKER, 32_768).batch(1)
    rows = batch.rows
    assert isinstance(rows, PairRows)
    assert rows.labels.tolist() == [1, 0, 0, 0] * 6
    assert rows.total == 24
    examples = drawn.corpus.read(batch.corpus_rows)
    serving = RerankingTokenizer(RERANKER, 32_768)
    for place, example in enumerate(examples):
        documents = [*example.positives, *example.negatives]
        tokens = serving(example.query, documents, RerankOptions(), sequence.instruction)
        pairs = batch.sequences[4 * place : 4 * place + len(documents)]
        for pair, expected in zip(pairs, tokens.documents, strict=True):
            whole = [*tokens.prefix, *expected.token_ids]
            assert pair.tolist() == whole
        text = RERANKER.decode(pairs[0])
        assert text.startswith(RERANK_PREFIX)
        assert text.endswith(f"<Document>: {example.positives[0]}{RERANK_SUFFIX}")


def test_missing_negatives_are_positives_of_other_queries(tmp_path: Path) -> None:
    drawn = source(tmp_path, negatives=[])
    batch = RerankerBatches(drawn, RerankerSequence(negatives=4), RERANKER, 32_768).batch(0)
    examples = drawn.corpus.read(batch.corpus_rows)
    others = {each.positives[0] for each in examples}
    for place, example in enumerate(examples):
        pairs = batch.sequences[5 * place + 1 : 5 * place + 5]
        texts = [
            RERANKER.decode(pair).split("<Document>: ")[1].removesuffix(RERANK_SUFFIX)
            for pair in pairs
        ]
        assert len(set(texts)) == 4
        assert set(texts) <= others - {example.positives[0]}


def test_no_answer_that_an_example_lists_is_judged_no(tmp_path: Path) -> None:
    both, seine = "Paris is the capital.", "The capital is Paris,\nat the Se\u00efne."
    lines = [
        {"query": "capital of France", "positives": [both, seine]},
        # The same text, written apart and with white space around it.
        {
            "query": "city at the Seine",
            "positives": [" The capital is Paris,\nat the Sei\u0308ne. "],
        },
        {"query": "capital of France ", "positives": ["Paris."]},
        {"query": "capital of Peru", "positives": ["Lima."]},
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    batches = RerankerBatches(read_source(file, size=4), RerankerSequence(), RERANKER, 32_768)
    drawn_positives = set()
    for step in range(8):
        batch = batches.batch(step)
        assert isinstance(batch.rows, PairRows)
        judged: dict[int, set[str]] = {0: set(), 1: set()}
        for pair, label in zip(batch.sequences, batch.rows.labels.tolist(), strict=True):
            query, document = RERANKER.decode(pair).split("<Query>: ")[1].split("\n<Document>: ")
            if query.strip() == "capital of France":
                judged[label].add(document.removesuffix(RERANK_SUFFIX))
        assert judged[0] == {"Lima."}
        drawn_positives |= judged[1]
    assert drawn_positives == {both, seine, "Paris."}  # each is drawn in some step


def test_a_long_query_of_a_pair_loses_its_end(tmp_path: Path) -> None:
    drawn = source(tmp_path, query="a very long question " * 60)
    sequence = RerankerSequence(negatives=1, max_query_tokens=12, max_tokens=300)
    batch = RerankerBatches(drawn, sequence, RERANKER, 32_768).batch(0)
    assert max(map(len, batch.sequences)) <= 300
    query = RERANKER.decode(batch.sequences[0]).split("<Query>: ")[1].split("\n<Document>")[0]
    assert "a very long question".startswith(query[:20])
    assert len(RERANKER.encode(query)) <= 13


def test_a_prompt_that_leaves_no_room_for_documents_is_refused(tmp_path: Path) -> None:
    sequence = RerankerSequence(max_query_tokens=64, max_tokens=120)
    with pytest.raises(InvalidRequest, match=r"sequence.maxTokens is 120; the prompt takes \d+"):
        RerankerBatches(source(tmp_path), sequence, RERANKER, 32_768)


@pytest.mark.parametrize("max_tokens", [64, 256, 2048, 100_000])
@pytest.mark.parametrize("shape", ["like", "two kinds", "any"])
def test_micro_batches_hold_every_sequence_within_their_budget(shape: str, max_tokens: int) -> None:
    order = np.random.default_rng(3)
    lengths = {
        "like": np.full(50, 20),
        "two kinds": np.where(np.arange(90) % 3 == 0, 100, 9),
        "any": order.integers(1, 130, 300),
    }[shape]
    sequences = [order.integers(1, 900, length) for length in lengths]
    parts = micro_batches(sequences, max_tokens)
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(len(sequences)))
    for part in parts:
        assert part.token_ids.numel() <= max(max_tokens, part.token_ids.shape[1])
        for ids, last, row in zip(part.token_ids, part.last, part.rows, strict=True):
            assert ids[: int(last) + 1].tolist() == sequences[int(row)].tolist()
    tokens = sum(part.token_ids.numel() for part in parts)
    padding = 1 - int(lengths.sum()) / tokens
    # Cut by size alone, two kinds of length would be half padding.
    assert padding < 0.15 or max_tokens > lengths.sum() * 4
