"""Debian's archive as a source: its index of packages, and files of packages without installing.

Everything happens in a folder of our own, so no rights are needed and the machine stays as it is.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from embedfleet.embedded.recipe.pairs import Pair, cut
from embedfleet.errors import EmbedfleetError

__all__ = ["Archive", "package_pairs"]

_DULL: Final = re.compile(
    r"transitional|dummy package|metapackage|meta-package|debug symbols|debugging symbols", re.I
)
_MIN_SUMMARY_CHARACTERS: Final = 15
_HELPER: Final = "/usr/lib/apt/apt-helper"


class Archive:
    """A private copy of the lists, and of what packages hold.

    Args:
        folder: Holds lists and packages; filled once and used again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        for name in ("lists/partial", "cache/archives/partial", "debs", "files"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        if not any(self._folder.glob("lists/*Translation-en*")):
            self._run("apt-get", "update", cwd=self._folder)
        if not any(self._folder.glob("lists/*Translation-en*")):
            raise EmbedfleetError(
                f"apt-get update brought no English descriptions into {self._folder}/lists. Check "
                "that the sources of this Debian machine name an archive that has them."
            )

    def index(self) -> Iterator[tuple[str, str]]:
        """Yield every package's source package and its description, the summary as first line."""
        sources = {
            record["package"]: record.get("source", record["package"]).partition(" ")[0]
            for record in self._records("*Packages*")
        }
        for record in self._records("*Translation-en*"):
            if record["package"] in sources:
                yield sources[record["package"]], record.get("description-en", "")

    def files(self, package: str) -> Path:
        """Return a folder with the files of one package, downloaded once."""
        target = self._folder / "files" / package
        if not target.exists():
            debs = self._folder / "debs"
            for old in debs.glob(f"{package}_*.deb"):
                old.unlink()
            self._run("apt-get", "download", package, cwd=debs)
            (deb,) = debs.glob(f"{package}_*.deb")
            self._run("dpkg-deb", "--extract", str(deb), str(target), cwd=debs)
        return target

    def _records(self, pattern: str) -> Iterator[dict[str, str]]:
        for file in sorted(self._folder.glob(f"lists/{pattern}")):
            text = self._run(_HELPER, "cat-file", str(file), cwd=self._folder)
            for record in text.split("\n\n"):
                found = re.findall(r"^([A-Za-z0-9-]+):[ ]?(.*(?:\n[ \t].*)*)", record, re.M)
                if found:
                    yield {name.lower(): value for name, value in found}

    def _run(self, program: str, *arguments: str, cwd: Path) -> str:
        settings = {
            "Dir::State::lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "Acquire::Languages": "en",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "root",
        }
        options = [f"--option={k}={v}" for k, v in settings.items()] if "apt" in program else []
        command = [program, *options, *arguments]
        try:
            done = subprocess.run(
                command, cwd=cwd, capture_output=True, text=True, errors="replace"
            )
        except FileNotFoundError as error:
            raise EmbedfleetError(
                f"{program} is not here: the data is gathered on a Debian machine. Run it on one."
            ) from error
        if done.returncode:
            raise EmbedfleetError(
                f"{program} {' '.join(arguments[:3])} failed: {done.stderr.strip()[-500:]}"
            )
        return done.stdout


def package_pairs(index: Iterable[tuple[str, str]]) -> Iterator[Pair]:
    """Pair each package's summary with its long description.

    Args:
        index: Source package and description, the summary as first line.
    """
    for source, description in index:
        summary, _, long = description.partition("\n")
        if _DULL.search(summary) or len(summary) < _MIN_SUMMARY_CHARACTERS:
            continue
        # What repeats the summary word by word would need no reading.
        document = _prose(long).replace(summary, "").strip()
        yield Pair(source, summary.strip(), cut(document))


def _prose(description: str) -> str:
    """Join a description's lines; a lone dot separates paragraphs (Debian Policy 5.6.13)."""
    lines = [line.strip() for line in description.splitlines()]
    return " ".join("\n" if line == "." else line for line in lines).replace(" \n ", "\n").strip()
