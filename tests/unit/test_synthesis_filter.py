"""Which drafts are kept, on cosines made by hand and on the engine's own, and the report of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedfleet.engine.local import LocalEmbedder, load_embedder
from embedfleet.errors import CheckpointError
from embedfleet.messages import InputType
from embedfleet.tuning.examples import Example, read_examples
from embedfleet.tuning.synthesis.answers import Reason
from embedfleet.tuning.synthesis.calling import Question, Unanswered
from embedfleet.tuning.synthesis.chat import key_of
from embedfleet.tuning.synthesis.costs import cost_of, counter_of, estimate, num_tokens
from embedfleet.tuning.synthesis.drawing import Draw
from embedfleet.tuning.synthesis.files import write_examples, write_rejected
from embedfleet.tuning.synthesis.filtering import Judged, cosines, keep_close, without_repeats
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.passages import Passage
from embedfleet.tuning.synthesis.prompts import Configuration, Difficulty, choosing, writing
from embedfleet.tuning.synthesis.replies import Completion, Ending
from embedfleet.tuning.synthesis.report import (
    HISTOGRAM_EDGES,
    Counts,
    Spending,
    report_of,
    spending_of,
)
from embedfleet.tuning.synthesis.settings import (
    Instructions,
    Length,
    Prices,
    SynthesisSettings,
    Task,
)
from embedfleet.tuning.synthesis.steps import Draft, Rejection, synthesize_query

SPENDING = Spending(9, 1, 1, 900, 90, 0, None, "")


def draft(
    query: str, passage: str = "p", task: Task = Task.RETRIEVAL, language: str = "en"
) -> Draft:
    found = Passage(f"name of {passage}", f"The text of {passage}.", "en")
    drawn = Draw(found, 0, tuple(Task), ("A cook",), "en", "", Length(min_words=1, max_words=5))
    return Draft(drawn, Configuration(task, "A cook", None, Difficulty.EXPERT), language, query)


def test_only_what_is_above_the_bound_is_kept() -> None:
    drafts = [draft(str(number)) for number in range(6)]
    measured = np.array([0.9, 0.7, 0.70001, 0.6999, -1.0, 1.0], np.float32)
    kept, rejected = keep_close(drafts, measured, 0.7)
    # 0.7 in float32 is below 0.7: "exceeds 0.7" is the paper's word.
    assert [each.draft.query for each in kept] == ["0", "2", "5"]
    assert [(each.query, each.reason) for each in rejected] == [
        ("1", Reason.LOW_COSINE), ("3", Reason.LOW_COSINE), ("4", Reason.LOW_COSINE),
    ]  # fmt: skip
    assert rejected[1].said == "the cosine is 0.6999, and filter.minCosine is 0.7"


def test_copies_and_repeats_go_and_the_first_stays() -> None:
    drafts = [
        draft("where is it", "a"),
        draft("  Where is IT", "b"),
        draft("where is it", "a", Task.STS),
        draft("THE TEXT  of c.", "c"),
        draft("where was it", "d"),
    ]
    kept, rejected = without_repeats(drafts)
    assert kept == [drafts[0], drafts[2], drafts[4]]
    assert [(each.reason, each.said) for each in rejected] == [
        (Reason.DUPLICATE, "the same query was written for passage name of a"),
        (Reason.COPY, "the query is its passage"),
    ]


@pytest.fixture(scope="module")
def embedder() -> Iterator[LocalEmbedder]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with load_embedder("embedded/embedder") as loaded:
        yield loaded
    torch.set_num_threads(threads)


def test_cosines_are_those_of_each_pair_alone(embedder: LocalEmbedder) -> None:
    tasks = [Task.RETRIEVAL, Task.STS, Task.BITEXT]
    # More than a chunk, passages shared between its sides.
    drafts = [draft(f"query {n}", f"{n // 3}", tasks[n % 3]) for n in range(259)]
    done: list[int] = []
    instructions = Instructions(sts="Find the same")
    found = cosines(drafts, embedder, instructions, done.append)
    assert done == [256, 3]
    for place in (0, 1, 2, 254, 255, 256, 258):
        each = drafts[place]
        query = embedder.embed(
            [each.query], InputType.QUERY, instruction=instructions.of(each.chosen.task)
        )
        passage = embedder.embed([each.draw.passage.text], InputType.DOCUMENT)
        assert found[place] == pytest.approx(float(query[0] @ passage[0]), abs=1e-5)


def test_nothing_to_compare(embedder: LocalEmbedder) -> None:
    assert cosines([], embedder, Instructions(), lambda done: None).shape == (0,)


def settings(**changes: object) -> SynthesisSettings:
    content = {
        "passages": {"file": "p.txt"},
        "outputFolder": "out",
        "endpoint": {"baseUrl": "http://localhost/v1", "model": "m", "maxTokens": 100},
        "filter": {"model": {"source": "embedded/embedder"}},
    } | changes
    return SynthesisSettings.model_validate_json(json.dumps(content))


def rejection(reason: Reason, cosine: float | None = None, written: bool = True) -> Rejection:
    base = draft("q")
    chosen = base.chosen if written else None
    return Rejection(base.draw, reason, "", chosen, "en", "q" if written else "", cosine)


def test_the_report_adds_up() -> None:
    kept = [
        Judged(draft("a"), 0.75),
        Judged(draft("b", language="de"), 0.8),
        Judged(draft("c", task=Task.STS), 1.0000001),
    ]
    rejected = [
        rejection(Reason.LOW_COSINE, 0.0),
        rejection(Reason.LOW_COSINE, -0.25),
        rejection(Reason.DUPLICATE),
        rejection(Reason.NOT_JSON, written=False),
    ]
    counts = Counts(8, Counter({"too-short": 2}), 9, 2, "budget.maxRequests is 9")
    report = report_of(counts, kept, rejected, settings(), SPENDING)
    assert report.num_kept + sum(report.rejected.values()) + report.num_waiting == 9
    assert report.rejected == {"duplicate": 1, "low-cosine": 2, "not-json": 1}
    groups = [(g.task, g.language, g.num_written, g.num_kept) for g in report.groups]
    assert groups == [("retrieval", "de", 1, 1), ("retrieval", "en", 4, 1), ("sts", "en", 1, 1)]
    assert len(HISTOGRAM_EDGES) == len(report.histogram) + 1
    # -0.25 | 0.0 | 0.75 | 0.8 | 1.0
    assert report.histogram == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert report.mean_cosine == pytest.approx((0.75 + 0.8 + 1 + 0 - 0.25) / 5)
    assert json.loads(json.dumps(report.as_json()))["skipped_passages"] == {"too-short": 2}


def test_examples_read_back_as_the_trainer_reads_them(tmp_path: Path) -> None:
    kept = [
        Judged(draft('say "ünïcode"\u2028'), 0.9),
        Judged(draft("b", "q", Task.STS, "de"), 0.8),
    ]
    write_examples(tmp_path, kept, Instructions())
    write_rejected(tmp_path, [rejection(Reason.LOW_COSINE, 0.5)])
    assert list(read_examples(tmp_path / "examples.jsonl")) == [
        Example(
            'say "ünïcode"\u2028',
            ("The text of p.",),
            instruction=Instructions().retrieval,
        ),
        Example(
            "b",
            ("The text of q.",),
            instruction="Retrieve semantically similar text",
            task="sts",
            language="de",
        ),
    ]
    (line,) = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "reason": "low-cosine", "said": "", "query": "q", "passage": "The text of p.",
        "task": "retrieval", "language": "en", "cosine": 0.5,
    }  # fmt: skip
    assert {each.name for each in tmp_path.iterdir()} == {"examples.jsonl", "rejected.jsonl"}


def test_costs(tmp_path: Path) -> None:
    prices = Prices(prompt_per_million=0.5, completion_per_million=2.0)
    assert cost_of(prices, 1_000_000, 250_000) == 1.0
    assert [num_tokens(text) for text in ("", "a", "abcd", "abcde", "字字字字")] == [0, 1, 1, 2, 3]
    with Journal.open(tmp_path) as journal:
        assert spending_of(journal, None).cost is None
        assert spending_of(journal, prices).cost == 0


def test_an_estimate_counts_what_is_sent(tmp_path: Path) -> None:
    given, drawn = settings(), draft("q").draw
    first = choosing(drawn)
    second = writing(drawn, Configuration(drawn.tasks[0], "A cook", None, Difficulty.EXPERT))
    with Journal.open(tmp_path) as journal:
        found = estimate([drawn, drawn], journal, given, num_tokens)
    assert (found.num_queries, found.num_questions, found.num_answered) == (2, 4, 0)
    sent = sum(num_tokens(m["content"]) for m in (*first.messages, *second.messages))
    # The type of a question, which only the answer tells, is about 10 tokens; 10 a message frame.
    assert 0 <= found.prompt_tokens - 2 * (sent + 4 * 10) < 2 * 20
    assert found.completion_tokens == 2 * (40 + 5 * 2 + 10)
    assert found.most_completion_tokens == 4 * 100
    prices = Prices(prompt_per_million=1.0, completion_per_million=1.0)
    assert found.cost(prices) < found.most_cost(prices)


CHOICE = '{"task": "sts", "persona": 1, "question_type": null, "difficulty": "university"}'
QUERY = '{"query": "tides"}'


def refused() -> Completion:
    return Completion("no", Ending.REFUSED)


@pytest.mark.parametrize(
    ("choices", "queries", "expected"),
    [
        # Answers so far of the first step and of the second: queries, questions left, answered.
        ([], [], (1, 2, 0)),
        ([Completion("Sure! {}")], [], (1, 2, 1)),
        ([Completion("Sure! {}"), Completion("{}")], [], (0, 0, 2)),
        ([Completion("Sure! {}"), Completion(CHOICE)], [], (1, 1, 2)),
        ([refused()], [], (0, 0, 1)),
        ([Completion(CHOICE)], [], (1, 1, 1)),
        ([Completion(CHOICE)], [Completion("tides")], (1, 1, 2)),
        ([Completion(CHOICE)], [Completion("tides"), Completion(QUERY)], (0, 0, 3)),
        ([Completion(CHOICE)], [Completion("tides"), Completion("tides!")], (0, 0, 3)),
        ([Completion(CHOICE)], [refused()], (0, 0, 2)),
    ],
)
async def test_an_estimate_goes_on_where_the_journal_ends(
    tmp_path: Path,
    choices: list[Completion],
    queries: list[Completion],
    expected: tuple[int, int, int],
) -> None:
    given, drawn = settings(), draft("q").draw
    unanswered = [*choices, *queries]

    async def answer(question: Question, take: Callable[[Completion], Any]) -> Any:
        """Note what is there, as a run would have until it was killed."""
        if not unanswered:
            raise Unanswered
        completion = unanswered.pop(0)
        key = key_of(given.endpoint, question.prompt, question.number)
        await journal.keep(key, question.passage, question.prompt.name, completion)
        return take(completion)

    with Journal.open(tmp_path) as journal:
        with suppress(Unanswered):
            await synthesize_query(drawn, answer)
        assert not unanswered
        found = estimate([drawn], journal, given, num_tokens)
    assert (found.num_queries, found.num_questions, found.num_answered) == expected


def test_counting_with_a_tokenizer(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "platform/embedfleet/embedded/embedder"
    for given in (folder, folder / "tokenizer.json"):
        assert 2 <= counter_of(str(given))("a plain sentence") <= 8
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        counter_of(str(tmp_path / "none.json"))
