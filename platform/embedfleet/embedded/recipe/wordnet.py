"""WordNet 3.0 as a source of what ordinary words mean (Princeton University; its own free licence).

Reads the files of `wordnet-base` (format: wndb(5WN)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from embedfleet.embedded.recipe.pairs import Pair, cut

__all__ = ["word_pairs"]


def word_pairs(folder: Path) -> Iterator[Pair]:
    """Pair words, and sentences that use them, with definitions.

    Args:
        folder: Holds `usr/share/wordnet/data.noun` and the other parts of speech.
    """
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / "usr/share/wordnet" / f"data.{part}").read_text().splitlines():
            if not line.startswith("  "):
                yield from _of_synset(line)


def _of_synset(line: str) -> Iterator[Pair]:
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    words = [_word(fields[4 + 2 * i]) for i in range(int(fields[3], 16))]
    examples = re.findall(r'"([^"]+)"', gloss)
    definition = re.sub(r';?\s*"[^"]*"', "", gloss).strip(" ;")
    group, named = words[0].lower(), f"{', '.join(words)}: {definition}"
    for example in examples:
        yield Pair(group, example, cut(named))
    if definition:
        yield Pair(group, ", ".join(words[:3]), cut(definition))


def _word(lemma: str) -> str:
    return re.sub(r"\(\w+\)$", "", lemma).replace("_", " ")
