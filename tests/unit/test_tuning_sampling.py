"""Which examples a step has: one task and language, no repeats, the seed and the step alone."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import write_examples

from embedfleet.errors import InvalidExamples, InvalidRequest
from embedfleet.tuning.corpus import Corpus, index_corpus
from embedfleet.tuning.sampling import Plan, plan_batches
from embedfleet.tuning.sections import DataFile
from embedfleet.tuning.settings import EmbedderSettings


def settings(**changes: Any) -> EmbedderSettings:
    content: dict[str, Any] = {
        "model": {"source": "m"},
        "output": {"folder": "o"},
        "data": [{"path": "x"}],
        "schedule": {"steps": 40},
        "batch": {"size": 4},
    }
    return EmbedderSettings.model_validate_json(json.dumps(content | changes), by_alias=True)


def corpus_of(*sources: DataFile) -> Corpus:
    return index_corpus(sources)


def mixed(tmp_path: Path) -> Corpus:
    """Three groups of 24, 12 and 6 examples in two files."""
    one = write_examples(tmp_path / "one.jsonl", 24)
    other = tmp_path / "other.jsonl"
    lines = write_examples(tmp_path / "a.jsonl", 12, task="sts").read_text()
    lines += write_examples(tmp_path / "b.jsonl", 6, task="sts", language="de").read_text()
    other.write_text(lines)
    return corpus_of(DataFile(path=str(one)), DataFile(path=str(other)))


def all_draws(plan: Plan) -> list[tuple[tuple[str, str], list[int]]]:
    drawn = [plan.draw(step) for step in range(plan.num_steps)]
    return [((d.group.task, d.group.language), d.rows.tolist()) for d in drawn]


def test_a_batch_has_one_source_task_and_language(tmp_path: Path) -> None:
    corpus = mixed(tmp_path)
    for group, rows in all_draws(plan_batches(corpus, settings())):
        examples = corpus.read(rows)
        assert {(each.task, each.language) for each in examples} == {group}
        assert len({corpus.row_files[row] for row in rows}) == 1


def test_a_group_repeats_nothing_before_all_of_it_came(tmp_path: Path) -> None:
    plan = plan_batches(mixed(tmp_path), settings(schedule={"epochs": 3}))
    by_group: dict[tuple[str, str], list[list[int]]] = {}
    for group, rows in all_draws(plan):
        by_group.setdefault(group, []).append(rows)
    for group, (count, a_pass) in {("retrieval", "en"): (24, 6), ("sts", "en"): (12, 3)}.items():
        batches = by_group[group]
        for start in range(0, len(batches) - a_pass + 1, a_pass):
            seen = Counter(row for rows in batches[start : start + a_pass] for row in rows)
            assert len(seen) == count
            assert set(seen.values()) == {1}


def test_passes_come_in_another_order(tmp_path: Path) -> None:
    plan = plan_batches(mixed(tmp_path), settings(schedule={"epochs": 2}))
    own = [rows for group, rows in all_draws(plan) if group == ("retrieval", "en")]
    assert own[:6] != own[6:12]
    assert sorted(chain(*own[:6])) == sorted(chain(*own[6:12]))


@pytest.mark.parametrize(
    ("temperature", "weight", "expected"),
    [
        (1, 1, {"retrieval": 6 / 10, "sts": 4 / 10}),
        (1e6, 1, {"retrieval": 1 / 3, "sts": 2 / 3}),
        (1, 3, {"retrieval": 18 / 22, "sts": 4 / 22}),
    ],
)
def test_groups_are_sampled_by_size_temperature_and_weight(
    tmp_path: Path, temperature: float, weight: float, expected: dict[str, float]
) -> None:
    corpus = mixed(tmp_path)
    sources = (DataFile(path=str(tmp_path / "one.jsonl"), weight=weight), corpus.sources[1])
    plan = plan_batches(
        corpus_of(*sources),
        settings(schedule={"steps": 900}, sampling={"temperature": temperature}),
    )
    found = Counter(group[0] for group, _ in all_draws(plan))
    for task, share in expected.items():
        assert found[task] / 900 == pytest.approx(share, abs=0.002)


def test_seed_and_step_alone_decide(tmp_path: Path) -> None:
    corpus = mixed(tmp_path)
    whole = all_draws(plan_batches(corpus, settings()))
    assert all_draws(plan_batches(mixed(tmp_path), settings())) == whole
    # Asked for in any order, as after a restart.
    again = plan_batches(corpus, settings())
    assert [again.draw(step).rows.tolist() for step in (17, 3, 39)] == [
        whole[step][1] for step in (17, 3, 39)
    ]
    assert all_draws(plan_batches(corpus, settings(seed=1))) != whole


def test_no_text_is_twice_in_a_batch_where_that_can_be(tmp_path: Path) -> None:
    # Eight texts of six examples each: six batches of eight can hold each text once.
    file = tmp_path / "data.jsonl"
    lines = [{"query": f"q{i // 2}", "positives": [f"p{i % 8}"]} for i in range(48)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = corpus_of(DataFile(path=str(file)))
    plan = plan_batches(corpus, settings(batch={"size": 4}, schedule={"epochs": 4}))
    doubled = 0
    for _, rows in all_draws(plan):
        examples = corpus.read(rows)
        doubled += 4 - len({each.positives for each in examples})
        doubled += 4 - len({each.query for each in examples})
    by_chance = 0.0
    for size in (8, 24):
        by_chance += plan.num_steps * (4 - size * (1 - (1 - 1 / size) ** 4))
    assert doubled == 0, f"{by_chance:.0f} would come by chance"


def test_each_positive_has_its_turn(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(
        '{"query": "q", "positives": ["a", "b", "c"]}\n{"query": "r", "positives": ["d"]}\n'
    )
    plan = plan_batches(corpus_of(DataFile(path=str(file))), settings(batch={"size": 2}))
    chosen = {
        (int(row), int(positive))
        for step in range(plan.num_steps)
        for row, positive in zip(plan.draw(step).rows, plan.draw(step).positives, strict=True)
    }
    assert chosen == {(0, 0), (0, 1), (0, 2), (1, 0)}


def test_examples_are_read_by_offset_with_what_their_source_replaces(tmp_path: Path) -> None:
    file = write_examples(tmp_path / "data.jsonl", 5)
    file.write_text("\n\n" + file.read_text().replace("\n", "\r\n"))
    corpus = corpus_of(DataFile(path=str(file), task="qa", language="fr", instruction="Find"))
    examples = corpus.read([4, 0, 4])
    assert [each.query for each in examples] == ["ember 4", "amber 0", "ember 4"]
    assert {(e.task, e.language, e.instruction) for e in examples} == {("qa", "fr", "Find")}
    assert corpus.where(4) == f"{file}, line 7"


def test_a_pattern_names_many_files(tmp_path: Path) -> None:
    for name in "ab":
        write_examples(tmp_path / f"{name}.jsonl", 3)
    corpus = corpus_of(DataFile(path=str(tmp_path / "*.jsonl")))
    assert len(corpus) == 6
    assert len(corpus.groups) == 1


def test_problems_of_all_files_are_told_up_to_a_limit(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("{}\n" * 12)
    with pytest.raises(InvalidExamples) as caught:
        corpus_of(DataFile(path=str(tmp_path / "*.jsonl")))
    told = caught.value.message.splitlines()
    assert len(told) == 21
    assert told[12].startswith(f"{tmp_path}/b.jsonl, line 1: query is missing")
    assert told[-1] == "These are the first 20 problems. Mend them first."


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("\n", "no example in it"),
        ('{"query": "q", "positives": ["p"]}\n', "needs at least 2 examples. Add some"),
    ],
)
def test_too_few_examples(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "data.jsonl").write_text(lines)
    with pytest.raises(InvalidRequest, match=said):
        plan_batches(corpus_of(DataFile(path=str(tmp_path / "data.jsonl"))), settings())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"data\[0\].path is .*none.jsonl: no such file"):
        corpus_of(DataFile(path=str(tmp_path / "none.jsonl")))


def test_data_that_changes_under_a_run_is_noticed(tmp_path: Path) -> None:
    file = write_examples(tmp_path / "data.jsonl", 3)
    corpus = corpus_of(DataFile(path=str(file)))
    file.write_text(file.read_text().replace("amber 0", "amber 9"))
    with pytest.raises(InvalidExamples, match="line 1: is not what it was when the run began"):
        corpus.read([0])
    assert corpus_of(DataFile(path=str(file))).digest != corpus.digest


def test_memory_is_some_bytes_an_example(tmp_path: Path) -> None:
    corpus = corpus_of(DataFile(path=str(write_examples(tmp_path / "d.jsonl", 1000))))
    arrays = [
        value
        for value in (getattr(corpus, name) for name in corpus.__slots__)
        if isinstance(value, np.ndarray)
    ]
    assert sum(each.nbytes for each in arrays) / 1000 < 48
