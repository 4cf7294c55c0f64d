"""What a soak calls growth: medians of memory, and counts that stay above what they were."""

from __future__ import annotations

import pytest
from e2e.soak import asked_minutes, courses, main
from e2e.usage import Usage

MIB = 1 << 20


def course(resident: list[float], sockets: list[int] | None = None):
    """The course of one process that used so many MiB, and so many sockets."""
    sockets = sockets or [1] * len(resident)
    samples = [
        {(1, "one"): Usage(int(each * MIB), 1, 1, count)}
        for each, count in zip(resident, sockets, strict=True)
    ]
    (found,) = courses(samples)
    return found


@pytest.mark.parametrize(
    ("resident", "growth", "why"),
    [
        ([100] * 10, 0.0, "nothing changed"),
        ([100] * 5 + [110] * 5, 0.1, "a tenth more"),
        ([110] * 5 + [100] * 5, 0.0, "less is no growth"),
        ([10] * 5 + [10.9] * 5, 0.0, "less than 1 MiB is noise"),
        ([100, 100, 100, 900, 900, 900, 900, 100, 100, 100], 0.0, "what was given back"),
        ([100, 100, 300] + [100] * 9 + [300, 100, 100], 0.0, "one sample is no median"),
    ],
)
def test_memory_grows_by_medians(resident, growth, why):
    assert course(resident).growth == pytest.approx(growth), why


@pytest.mark.parametrize(
    ("sockets", "grown", "why"),
    [
        ([5, 9, 5, 9, 5, 9, 5, 9, 5, 9], [], "they come and go"),
        ([5, 6, 6, 7, 7, 8, 8, 9, 9, 9], ["sockets"], "always more than at first"),
        ([9, 9, 8, 8, 7, 7, 6, 6, 5, 5], [], "fewer"),
    ],
)
def test_counts_grow_where_the_least_is_above_the_most(sockets, grown, why):
    assert course([100] * 10, sockets).grown == grown, why


def test_what_came_or_went_meanwhile_has_no_course():
    there = Usage(MIB, 1, 1, 1)
    found = courses([{(1, "stays"): there, (2, "goes"): there}, {(1, "stays"): there}])
    assert [each.name for each in found] == ["stays"]


@pytest.mark.parametrize("given", ["abc", "0.5", "-20", "inf", "nan"])
def test_minutes_that_cannot_be_are_refused(given, capsys):
    assert main([given]) == 2
    said = f"soak: minutes is {given!r}; give a number of at least 1, such as 20.\n"
    assert capsys.readouterr().err == said


def test_minutes_are_twenty_unless_given():
    assert (asked_minutes([]), asked_minutes(["7.5"])) == (20.0, 7.5)
