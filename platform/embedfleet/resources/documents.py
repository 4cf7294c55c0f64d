"""YAML text into plain values, document by document, refusing what YAML would pass over in silence.

Duplicate keys, tags of other types and aliases that unfold without end are errors. Values are
those of JSON, so that a date or a version number without quotes stays what the user wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

from embedfleet.errors import Problem

__all__ = ["Document", "read_documents"]

_MAX_NODES: Final = 200_000
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_MERGE: Final = "tag:yaml.org,2002:merge"
_SCALARS: Final = frozenset(
    f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null")
)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document as plain values.

    Attributes:
        file: Where it was read from.
        number: Position in its file, from 1.
    """

    file: str
    number: int
    content: object


class _Refused(Exception):
    def __init__(self, node: yaml.Node, limit: str, remedy: str) -> None:
        super().__init__(limit)
        self.line = node.start_mark.line + 1
        self.limit = limit
        self.remedy = remedy


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class has it so
        first: [(tag, regexp) for tag, regexp in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    num_nodes = 0

    def plain(self, node: yaml.Node) -> object:
        """Turn a node into plain values, counting nodes so that aliases cannot explode."""
        self.num_nodes += 1
        if self.num_nodes > _MAX_NODES:
            raise _Refused(node, f"has more than {_MAX_NODES} values", "Use fewer aliases.")
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self.plain(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                value: object = self.construct_object(node)
            except ValueError as error:
                raise _Refused(node, f"cannot be read: {error}", "Correct it.") from error
            return value
        raise _Refused(node, f"has the tag {node.tag}, which is not read here", "Remove the tag.")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(merged, key_node, self.plain(value_node))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(key_node, "a key is not text", "Write keys as plain words.")
            if key_node.value in own:
                raise _Refused(
                    key_node,
                    f"the key {key_node.value} stands here twice",
                    "Remove one of the two.",
                )
            own[key_node.value] = self.plain(value_node)
        return {**merged, **own}

    def _merge(self, merged: dict[str, object], node: yaml.Node, value: object) -> None:
        for mapping in value if isinstance(value, list) else [value]:
            if not isinstance(mapping, dict):
                raise _Refused(node, "<< merges something that is no mapping", "Merge a mapping.")
            for key, item in mapping.items():
                merged.setdefault(key, item)


# YAML 1.1 wants a point and a sign in a number with an exponent; Kubernetes, as YAML 1.2, does not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_documents(file: str, text: str) -> Iterator[Document | Problem]:
    """Yield each document of a file, or why it could not be read; empty documents are skipped.

    A syntax error ends the file: where the next document starts is then unknown.
    """
    number = 0
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        yield _unreadable(file, 1, error)
        return
    while True:
        number += 1
        loader.num_nodes = 0
        try:
            node = loader.get_node() if loader.check_node() else None
            if node is None:
                return
            content = loader.plain(node)
        except _Refused as refused:
            yield Problem(
                file, number, "", "", f"line {refused.line}", "", refused.limit, refused.remedy
            )
            continue
        except (yaml.YAMLError, RecursionError) as error:
            yield _unreadable(file, number, error)
            return
        if content is not None:
            yield Document(file, number, content)


def _unreadable(file: str, number: int, error: yaml.YAMLError | RecursionError) -> Problem:
    where, what = "document", str(error)
    if isinstance(error, RecursionError):
        what = "is nested too deeply, or holds itself"
    elif isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        what = " ".join(part for part in (error.context, error.problem) if part)
    elif isinstance(error, yaml.reader.ReaderError):
        what = f"character {error.character!r} at position {error.position} is not allowed in YAML"
    return Problem(file, number, "", "", where, "", f"is not YAML: {what}", "Correct the syntax.")
