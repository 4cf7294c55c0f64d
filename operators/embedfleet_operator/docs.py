"""What documents say a second time: the chart's values, the schema of its catalogue, the reasons.

Each is written from the one place that decides it, between marks that readers do not see, so that
a test can tell when they differ. Text around the marks is people's.

Usage: python -m embedfleet_operator.docs FOLDER    rewrites the files of a checkout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final

import click
import yaml

from embedfleet_operator.conditions.reasons import REASONS
from embedfleet_operator.crds.kinds import KINDS, Kind, definition

__all__ = ["catalogue_schema", "reasons_table", "values_table", "written"]

_CHART: Final = Path("charts/embedfleet")
_COMMENT: Final = re.compile(r"^ *# (-- )?(.*)$")
_KEY: Final = re.compile(r"^( *)([A-Za-z]+):(.*)$")


def values_table(text: str) -> str:
    """Make a table of a chart's values from comments that start with `# -- `.

    Raises:
        ValueError: A value has no comment.
    """
    rows = ["| value | default | what it is |", "|---|---|---|"]
    values = yaml.safe_load(text)
    for path, comment in _documented(text.splitlines()):
        default = reduce(lambda inside, key: inside[key], path, values)
        rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {comment} |")
    return "\n".join(rows)


def _documented(lines: list[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each value's path and comment; a comment on a mapping speaks for all of it."""
    path: list[str] = []
    comment: list[str] = []
    spoken_for = -1
    for line in lines:
        if said := _COMMENT.match(line):
            begins, words = said.groups()
            if begins or comment:
                comment = [words] if begins else [*comment, words]
            continue
        key = _KEY.match(line)
        if key is None:
            continue
        depth = len(key[1]) // 2
        if -1 < spoken_for < depth:
            continue
        path, spoken_for = [*path[:depth], key[2]], -1
        if comment:
            yield tuple(path), " ".join(comment)
            comment, spoken_for = [], depth
        elif key[3].strip():
            raise ValueError(f"{'.'.join(path)} has no comment. Say above it what it is: `# -- `.")


def catalogue_schema(text: str) -> str:
    """Set the definitions of a chart's JSON schema to the specs of the custom resources."""
    schema = json.loads(text)
    schema["$defs"] = {kind.name: _resource(kind) for kind in KINDS}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _resource(kind: Kind) -> dict[str, Any]:
    version = definition(kind)["spec"]["versions"][0]
    whole = version["schema"]["openAPIV3Schema"]
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": whole.get("required", []),
        "properties": {
            "namespace": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "labels": labels,
            "annotations": labels,
            "spec": _strict(whole["properties"]["spec"]),
        },
    }


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what JSON schema knows of a structural schema, and refuse what it does not name."""
    kept = {k: v for k, v in schema.items() if not k.startswith("x-") and k != "default"}
    for keyword in ("items", "additionalProperties"):
        if isinstance(kept.get(keyword), Mapping):
            kept[keyword] = _strict(kept[keyword])
    if "properties" in kept:
        kept["properties"] = {name: _strict(each) for name, each in kept["properties"].items()}
        kept["additionalProperties"] = False
    return kept


def reasons_table() -> str:
    """Make a table of every reason that a condition gives, and of what to do about it."""
    rows = ["| reason | what it means, and what to do |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{reason}` | {text} |" for reason, text in REASONS.items())])


def _between(text: str, mark: str, body: str) -> str:
    begin, end = f"<!-- {mark}: written by `make docs` -->", f"<!-- /{mark} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"The marks {begin} and {end} are missing. Put them where the table goes.")
    return f"{before}{begin}\n{body}\n{end}{after}"


def written(folder: Path) -> dict[Path, str]:
    """Write every file anew that holds something of this kind, by path in the checkout."""
    readme, chart, schema = Path("README.md"), _CHART / "README.md", _CHART / "values.schema.json"
    values = values_table((folder / _CHART / "values.yaml").read_text())
    return {
        readme: _between((folder / readme).read_text(), "reasons", reasons_table()),
        chart: _between((folder / chart).read_text(), "values", values),
        schema: catalogue_schema((folder / schema).read_text()),
    }


@click.command(help="Rewrite what the documents of the checkout in FOLDER repeat of the code.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write what differs."""
    for path, text in written(folder).items():
        (folder / path).write_text(text)


if __name__ == "__main__":
    main()
