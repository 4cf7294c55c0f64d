"""Options that several commands on fleets of this machine share."""

from __future__ import annotations

from collections.abc import Sequence

import click

from embedfleet.resources.documents import Document, read_documents

__all__ = ["changed_fields", "contract_option", "files_option", "fleet_option", "set_option"]

contract_option = click.option(
    "--allow-contract-change",
    is_flag=True,
    help="Let a model in use change its vectors: those made before must be made again.",
)
files_option = click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Manifest file, folder of manifests, or - for standard input. Repeatable.",
)
fleet_option = click.option(
    "--fleet",
    default="",
    metavar="NAME",
    help="Fleet of this machine; not needed where only one runs.",
)
set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Another value of one field, as in YAML. Repeatable.",
)


def changed_fields(changes: Sequence[str]) -> dict[str, object]:
    """Read what `--set` says, by path of field; a value is what YAML takes it for.

    Raises:
        UsageError: It is not FIELD=VALUE, or the value is not YAML.
    """
    found: dict[str, object] = {}
    for change in changes:
        field, equals, text = change.partition("=")
        if not (field and equals):
            raise click.UsageError(f"--set {change}: write it as FIELD=VALUE.")
        documents = list(read_documents("--set", text))
        if len(documents) > 1 or not all(isinstance(each, Document) for each in documents):
            raise click.UsageError(f"--set {field}: {text!r} is not YAML. Quote it.")
        found[field] = None
        for each in documents:
            if isinstance(each, Document):
                found[field] = each.content
    return found
