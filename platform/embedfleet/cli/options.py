"""Options that several commands on fleets of this machine share."""

from __future__ import annotations

import click

__all__ = ["contract_option", "files_option", "fleet_option"]

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
