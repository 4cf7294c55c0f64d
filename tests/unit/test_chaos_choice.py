"""Which faults a run of chaos does: all, or those whose names hold a word that was asked for."""

from __future__ import annotations

import pytest
from e2e.chaos import FLEETS, chosen, main


def names(*words: str) -> list[str]:
    return [name for _, faults in chosen(words) for name in faults]


def test_without_words_everything_is_done():
    assert names() == [name for _, faults in FLEETS for name in faults]


def test_words_choose_by_name_from_all_fleets():
    assert names("the head pod") == ["the head pod", "the head pod, its state in Redis"]
    assert names("etcd", "Redis") == ["etcd, for 15 s", "the head pod, its state in Redis"]


def test_a_word_that_chooses_nothing_is_refused(capsys):
    """Before anything is done: a run of no faults would have lost nothing."""
    assert main(["etcd", "ectd"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("chaos: no fault's name holds 'ectd'. There are: one of two rep")


@pytest.mark.parametrize("name", [name for _, faults in FLEETS for name in faults])
def test_every_fault_can_be_chosen_by_its_name(name):
    assert name in names(name)
