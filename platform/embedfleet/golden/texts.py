"""The golden set: texts and documents that every contract is measured by.

Fixed for good, like the version that stands with them: a changed letter makes every golden output
that was ever recorded worthless. Short and long, several scripts, code and numbers, since a kernel
may go wrong on some of these only. Documents run from an answer to nothing of the kind, so that
their order is one that small errors do not turn round.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from embedfleet.messages import InputType

__all__ = ["GOLDEN_DOCUMENTS", "GOLDEN_QUERY", "GOLDEN_TEXTS", "GoldenText"]


class GoldenText(NamedTuple):
    """A text, and whether it is asked for or searched in."""

    input_type: InputType
    text: str


_LONG_QUERY: Final = (
    "I keep a small library of field recordings from rivers and harbours, about forty hours in "
    "all, and every file has a page of notes: where I stood, what the weather did, which boats "
    "passed, and what I thought I heard. I would like to search these notes the way I remember "
    "them, by mood and by place rather than by the exact words that I happened to write down "
    "years ago. Which way of indexing suits such short, uneven texts, how much memory will it "
    "take on an old laptop, and what should I do about notes that mix two languages?"
)
_LONG_DOCUMENT: Final = (
    "A tidal mill works without a river. At high water the sea fills a pond behind a dam, and a "
    "gate that opens only inwards keeps it there. When the tide has fallen far enough, the miller "
    "lets the pond run out through a channel under the wheel, which turns for four or five hours, "
    "twice in every lunar day. Because the hours of work move on by about fifty minutes each day, "
    "the miller had to sleep when the moon allowed it. Such mills stood along the coasts of "
    "Brittany, Galicia and Essex from the seventh century on, and a few of them still grind."
)

GOLDEN_TEXTS: Final = (
    GoldenText(InputType.QUERY, "why is the sky blue"),
    GoldenText(InputType.DOCUMENT, "import numpy as np"),
    GoldenText(InputType.QUERY, "海水为什么是咸的"),
    GoldenText(
        InputType.DOCUMENT,
        "Железная дорога между двумя городами открылась в 1851 году; её длина — 649,7 км.",
    ),
    GoldenText(InputType.QUERY, _LONG_QUERY),
    GoldenText(InputType.DOCUMENT, _LONG_DOCUMENT),
    GoldenText(InputType.QUERY, "ما هي درجة غليان الماء على ارتفاع 3000 متر؟"),
    GoldenText(
        InputType.DOCUMENT,
        "def median(values):\n    ordered = sorted(values)\n    half = len(ordered) // 2\n"
        "    return ordered[half] if len(ordered) % 2 else sum(ordered[half - 1:half + 1]) / 2\n",
    ),
)
"""Half as queries and half as documents; at most about a hundred words each."""

GOLDEN_QUERY: Final = "How long does it take to boil an egg?"

GOLDEN_DOCUMENTS: Final = (
    "A soft-boiled egg takes four to six minutes in boiling water, a hard-boiled one nine to "
    "twelve.",
    "Eggs poach in about three minutes in water that barely simmers.",
    "Put the eggs into cold water, bring it to the boil, and start the clock then.",
    "鸡蛋煮熟大约需要十分钟。",
    "A hen lays an egg roughly every twenty-five hours.",
    "Water boils at 100 °C at sea level and at about 90 °C at 3,000 metres.",
    "The museum opens at ten and closes at half past five; the last tickets are sold at five.",
    "for (size_t i = 0; i < n; ++i) total += weights[i] * values[i];",
)
"""All of them scored against the one query."""
