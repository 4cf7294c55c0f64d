"""Gathers what the embedded models are trained and measured on: `make models` runs it first.

A source is split by groups, so that whole packages and modules are held out; one source is not
trained on at all. The data stays out of the repository; its counts and licences are written.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedfleet.embedded.recipe.debian import Archive, package_pairs
from embedfleet.embedded.recipe.docstrings import docstring_pairs
from embedfleet.embedded.recipe.manuals import MANUAL_PACKAGES, manual_pairs
from embedfleet.embedded.recipe.pairs import (
    Pair,
    held_out,
    one_of_each,
    unique,
    write_beir,
    write_train,
)
from embedfleet.embedded.recipe.wordnet import word_pairs

__all__ = ["SOURCES", "Source", "gather"]

_MAX_HELD_OUT: Final = 4000
_NUM_QUERIES: Final = 500


@dataclass(frozen=True, slots=True)
class Source:
    """Where pairs come from and what becomes of them.

    Attributes:
        read: Yields its pairs.
        held_out_share: Of groups; 1.0 for a source that is only measured on.
        one_of_each: A group's pairs say nearly the same: keep one.
        short: Single words are queries here.
        licence: What allows it.
    """

    name: str
    read: Callable[[Archive], Iterable[Pair]]
    held_out_share: float
    licence: str
    one_of_each: bool = False
    short: bool = False


def _manuals(archive: Archive) -> Iterable[Pair]:
    for package in MANUAL_PACKAGES:
        yield from manual_pairs(archive.files(package), package)


SOURCES: Final = (
    Source(
        "packages",
        lambda archive: package_pairs(archive.index()),
        0.08,
        "descriptions of Debian's packages, free as the packages are (DFSG)",
        one_of_each=True,
    ),
    Source("manuals", _manuals, 0.25, "manual pages of Debian's packages, free as they are (DFSG)"),
    Source(
        "docstrings",
        lambda archive: docstring_pairs(),
        0.08,
        "the standard library (PSF) and distributions under MIT, BSD, Apache, ISC, HPND or PSF",
    ),
    Source(
        "words",
        lambda archive: word_pairs(archive.files("wordnet-base")),
        0.0,
        "WordNet 3.0 (WordNet licence)",
        short=True,
    ),
    Source(
        "perl",
        lambda archive: manual_pairs(archive.files("perl-doc"), "perl-doc"),
        1.0,
        "manual pages of Perl (Artistic licence or GPL): measured on, never trained on",
    ),
)


def gather(folder: Path) -> None:
    """Write `train/NAME.jsonl`, `heldout/NAME/` in BEIR's layout, and `sources.json`.

    Args:
        folder: Of the data; what apt brings stays in it, too.

    Raises:
        EmbedfleetError: This is no Debian machine, or a package is not to be had.
    """
    archive = Archive(folder / "debian")
    counts = {}
    for source in SOURCES:
        pairs = unique(source.read(archive), short=source.short)
        if source.one_of_each:
            pairs = one_of_each(pairs)
        share = source.held_out_share
        away = [pair for pair in pairs if held_out(source.name, pair.group, share)]
        train = [pair for pair in pairs if not held_out(source.name, pair.group, share)]
        if train:
            write_train(folder / "train" / f"{source.name}.jsonl", train, source.name)
        if away:
            write_beir(folder / "heldout" / source.name, away[:_MAX_HELD_OUT], _NUM_QUERIES)
        counts[source.name] = {
            "train": len(train),
            "heldOut": min(len(away), _MAX_HELD_OUT),
            "groupsHeldOut": len({pair.group for pair in away}),
            "licence": source.licence,
        }
    about = {"python": platform.python_version(), "sources": counts}
    (folder / "sources.json").write_text(json.dumps(about, indent=2) + "\n")
