"""Manifests from files, folders and streams: all of them at once, with all of their problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, TextIO

from embedfleet.errors import InvalidManifest, Problem
from embedfleet.resources.base import API_VERSION, Resource, Violation
from embedfleet.resources.documents import Document, read_documents
from embedfleet.resources.embedder import Embedder
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.model_cache import ModelCache
from embedfleet.resources.model_route import ModelRoute
from embedfleet.resources.problems import closest, identity, judge, problem
from embedfleet.resources.reranker import Reranker
from embedfleet.resources.rules import (
    Model,
    Served,
    cache_violations,
    fleet_violations,
    name_violations,
    pool_violations,
    route_violations,
)

__all__ = ["KINDS", "Manifests", "load_manifests", "parse_manifests"]

KINDS: Final[dict[str, type[Resource]]] = {
    "Fleet": Fleet,
    "Embedder": Embedder,
    "Reranker": Reranker,
    "ModelRoute": ModelRoute,
    "ModelCache": ModelCache,
}
_SUFFIXES: Final = (".yaml", ".yml", ".json")
_STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class Manifests:
    """Resources that are right on their own and with each other, in the order they were given."""

    fleets: tuple[Fleet, ...] = ()
    embedders: tuple[Embedder, ...] = ()
    rerankers: tuple[Reranker, ...] = ()
    routes: tuple[ModelRoute, ...] = ()
    caches: tuple[ModelCache, ...] = ()

    @property
    def models(self) -> tuple[Model, ...]:
        """All that replicas run for, embedders first."""
        return (*self.embedders, *self.rerankers)

    def resources(self) -> Iterator[Fleet | Served | ModelCache]:
        """Yield the resources of every kind, one kind after the other."""
        for each in fields(self):
            yield from getattr(self, each.name)

    def only_fleet(self) -> Fleet:
        """Give the one fleet.

        Raises:
            InvalidManifest: There is none, or there are several.
        """
        if len(self.fleets) == 1:
            return self.fleets[0]
        found = ", ".join(fleet.name for fleet in self.fleets) or "none"
        raise InvalidManifest(
            f"kind Fleet: exactly one is needed here, found {found}. "
            + ("Give the files of one." if self.fleets else "Add a document of kind Fleet.")
        )

    def of_fleet(self, fleet: Fleet) -> Manifests:
        """Keep one fleet, what it serves, and the caches beside it."""
        namespace = fleet.metadata.namespace
        beside = [each for each in self.fleets if each.metadata.namespace == namespace]
        names = (fleet.name,) if len(beside) > 1 else (fleet.name, None)

        def served(model: Served) -> bool:
            return model.metadata.namespace == namespace and model.spec.fleet in names

        return Manifests(
            (fleet,),
            tuple(embedder for embedder in self.embedders if served(embedder)),
            tuple(reranker for reranker in self.rerankers if served(reranker)),
            tuple(route for route in self.routes if served(route)),
            tuple(each for each in self.caches if each.metadata.namespace == namespace),
        )


def load_manifests(paths: Sequence[str | Path], stdin: TextIO | None = None) -> Manifests:
    """Read files, folders (their `.yaml`, `.yml` and `.json` files) and `-` for the stream.

    Raises:
        InvalidManifest: With every problem of every file.
    """
    texts: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for path in paths:
        if str(path) == _STDIN and stdin is not None:
            texts.append(("stdin", stdin.read()))
            continue
        files = _files(Path(path))
        if not files:
            # To be named, should there be nothing elsewhere either.
            texts.append((f"{Path(path)}/", ""))
        for file in files:
            try:
                texts.append((str(file), file.read_bytes().decode()))
            except UnicodeDecodeError as error:
                limit = f"is not UTF-8 at byte {error.start}"
                problems.append(_file_problem(str(file), limit, "Save it as UTF-8."))
            except OSError as error:
                limit = f"cannot be read: {error.strerror or error}"
                problems.append(_file_problem(str(file), limit, "Check the path."))
    return _manifests(texts, problems)


def parse_manifests(text: str, file: str = "text") -> Manifests:
    """Read the documents of one text.

    Raises:
        InvalidManifest: With every problem found.
    """
    return _manifests([(file, text)], [])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _manifests(texts: Sequence[tuple[str, str]], problems: list[Problem]) -> Manifests:
    parsed: list[tuple[Document, Resource]] = []
    documents: list[Document] = []
    for file, text in texts:
        for document in read_documents(file, text):
            if isinstance(document, Problem):
                problems.append(document)
                continue
            documents.append(document)
            judged = _judge(document)
            if isinstance(judged, tuple):
                problems.extend(judged)
            else:
                parsed.append((document, judged))
    if not documents and not problems:
        known = f"Known kinds: {', '.join(KINDS)}."
        files = [file for file, _ in texts] or ["manifests"]
        problems.extend(_file_problem(file, "holds no resource", known) for file in files)
    problems.extend(_together(parsed, documents))
    if problems:
        raise InvalidManifest.of(tuple(problems))
    resources = [resource for _, resource in parsed]
    return Manifests(
        tuple(each for each in resources if isinstance(each, Fleet)),
        tuple(each for each in resources if isinstance(each, Embedder)),
        tuple(each for each in resources if isinstance(each, Reranker)),
        tuple(each for each in resources if isinstance(each, ModelRoute)),
        tuple(each for each in resources if isinstance(each, ModelCache)),
    )


def _judge(document: Document) -> Resource | tuple[Problem, ...]:
    content = document.content
    if not isinstance(content, dict):
        return (
            problem(
                document,
                Violation(
                    "document", content, "must be a mapping", "Start with apiVersion and kind."
                ),
            ),
        )
    api_version, kind = content.get("apiVersion"), content.get("kind")
    if api_version != API_VERSION:
        return (_unknown(document, "apiVersion", api_version, [API_VERSION]),)
    if not isinstance(kind, str) or kind not in KINDS:
        return (_unknown(document, "kind", kind, list(KINDS)),)
    return judge(KINDS[kind], document)


def _unknown(document: Document, field: str, value: object, known: list[str]) -> Problem:
    near = closest(str(value), known)
    return problem(
        document,
        Violation(
            field,
            "" if value is None else value,
            "is required" if value is None else "is not known",
            f"Did you mean {near}?" if near and value != near else f"Known: {', '.join(known)}.",
        ),
    )


def _together(
    parsed: Sequence[tuple[Document, Resource]], documents: Sequence[Document]
) -> Iterator[Problem]:
    """Judge each namespace's resources against each other; unparsed ones count by their name."""
    namespaces = dict.fromkeys(_namespace(document.content) for document in documents)
    for namespace in namespaces:
        inside = [each for each in documents if _namespace(each.content) == namespace]
        yield from _repeated(inside)
        names = dict.fromkeys(n for kind, n in map(_identity, inside) if kind == "Fleet" and n)
        here = [(d, each) for d, each in parsed if _namespace(d.content) == namespace]
        fleets = {each.name: each for _, each in here if isinstance(each, Fleet)}
        served = [(d, each) for d, each in here if isinstance(each, Served)]
        yield from _served(served, list(names), fleets)
        yield from _cached(here, inside)
        yield from _routes(served, inside, list(names))


def _repeated(documents: Sequence[Document]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], Document] = {}
    for document in documents:
        key = _identity(document)
        first = seen.setdefault(key, document)
        if key[1] and first is not document:
            limit = f"is also in {first.file}[{first.number}]"
            remedy = "Rename or remove one of the two."
            yield problem(document, Violation("metadata.name", key[1], limit, remedy))


def _served(
    served: Sequence[tuple[Document, Served]], names: Sequence[str], fleets: Mapping[str, Fleet]
) -> Iterator[Problem]:
    before: list[tuple[str | None, Served]] = []
    for document, model in served:
        served_by = _served_by(model.spec.fleet, names)
        others = [
            other
            for fleet, other in before
            if fleet == served_by and (other.kind, other.name) != (model.kind, model.name)
        ]
        violations = [*fleet_violations(model, names), *name_violations(model, others)]
        if served_by is not None and served_by in fleets and not isinstance(model, ModelRoute):
            violations += pool_violations(model, fleets[served_by])
        for violation in violations:
            yield problem(document, violation)
        before.append((served_by, model))


def _cached(
    here: Sequence[tuple[Document, Resource]], inside: Sequence[Document]
) -> Iterator[Problem]:
    parsed = {each.name: each for _, each in here if isinstance(each, ModelCache)}
    names = dict.fromkeys(n for kind, n in map(_identity, inside) if kind == "ModelCache" and n)
    caches = {name: parsed.get(name) for name in names}
    for document, model in here:
        # Where none is given, names are resolved on being applied.
        if caches and isinstance(model, Model):
            for violation in cache_violations(model, caches):
                yield problem(document, violation)


def _routes(
    served: Sequence[tuple[Document, Served]], inside: Sequence[Document], names: Sequence[str]
) -> Iterator[Problem]:
    embedders = {each.name: each for _, each in served if isinstance(each, Embedder)}
    parsed: dict[tuple[str, str], str | None] = {
        (each.kind, each.name): _served_by(each.spec.fleet, names) for _, each in served
    }
    for document, route in served:
        if not isinstance(route, ModelRoute):
            continue
        kind = route.spec.target_kind
        known = {n: parsed.get((k, n)) for k, n in map(_identity, inside) if k == kind and n}
        same_kind = embedders if kind == "Embedder" else {}
        fleet = _served_by(route.spec.fleet, names)
        for violation in route_violations(route, fleet, known, same_kind):
            yield problem(document, violation)


def _served_by(fleet: str | None, names: Sequence[str]) -> str | None:
    """Resolve a reference to a fleet: none is needed where there is just one."""
    return fleet or (names[0] if len(names) == 1 else None)


def _identity(document: Document) -> tuple[str, str]:
    return identity(document.content)


def _namespace(content: object) -> str:
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return str(metadata.get("namespace") or "") if isinstance(metadata, dict) else ""


def _file_problem(file: str, limit: str, remedy: str) -> Problem:
    return Problem(file, 1, "", "", "file", "", limit, remedy)
