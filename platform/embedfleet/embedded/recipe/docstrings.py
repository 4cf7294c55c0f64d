"""Python code as a source: what a function's docstring says, and the function without it.

Only distributions whose metadata names a licence that allows it, and the standard library.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from embedfleet.embedded.recipe.pairs import Pair, cut

__all__ = ["docstring_pairs", "file_pairs", "open_distributions"]

_ALLOWED: Final = re.compile(
    r"\bMIT\b|BSD|Apache|Python Software Foundation|\bPSF\b|\bISC\b|HPND", re.I
)
_STANDARD_LIBRARY: Final = "python"
_MAX_PER_GROUP: Final = 3000
_OWN: Final = "embedfleet"


def docstring_pairs() -> Iterator[Pair]:
    """Pair docstrings with code: the standard library by module, distributions as wholes."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if "site-packages" not in file.parts and "test" not in str(file.relative_to(library)):
            module = file.relative_to(library).parts[0].removesuffix(".py")
            yield from file_pairs(file, f"{_STANDARD_LIBRARY}/{module}")
    for distribution in open_distributions():
        name = distribution.metadata["Name"]
        pairs = _of_distribution(distribution, name)
        for _, pair in zip(range(_MAX_PER_GROUP), pairs, strict=False):
            yield pair


def open_distributions() -> list[Distribution]:
    """Return installed distributions under MIT, BSD, Apache, ISC, HPND or PSF licences, by name."""
    found = {}
    for distribution in distributions():
        metadata = distribution.metadata
        said = [metadata[key] for key in ("License-Expression", "License") if key in metadata]
        said += [c for c in metadata.get_all("Classifier") or () if c.startswith("License")]
        name = metadata["Name"]
        if name != _OWN and any(_ALLOWED.search(each[:200]) for each in said):
            found[name] = distribution
    return [found[name] for name in sorted(found, key=str.lower)]


def _of_distribution(distribution: Distribution, name: str) -> Iterator[Pair]:
    for entry in sorted(distribution.files or (), key=str):
        if entry.suffix == ".py" and "test" not in str(entry).lower():
            yield from file_pairs(Path(str(entry.locate())), name)


def file_pairs(file: Path, group: str) -> Iterator[Pair]:
    """Pair the docstrings of one file's functions with their code; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or len(node.body) < 2:
            continue
        query = _first_sentence(docstring)
        if query is None:
            continue
        node.body = node.body[1:]
        node.decorator_list = []
        yield Pair(group, query, cut(ast.unparse(node)))


def _first_sentence(docstring: str) -> str | None:
    """Return the summary in one line, or None where it is markup or too long to be one."""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0].rstrip(".")
    if not 15 <= len(sentence) <= 200 or not sentence.isascii() or "::" in sentence:
        return None
    return re.sub(r"``?|:\w+:", "", sentence)
