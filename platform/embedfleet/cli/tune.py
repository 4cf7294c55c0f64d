"""`embedfleet tune embedder|reranker`: learn from examples, and leave a model to be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from embedfleet.cli.options import changed_fields, set_option
from embedfleet.cli.output import note
from embedfleet.config import let_threads_sleep
from embedfleet.errors import InvalidRequest
from embedfleet.messages import Role

__all__ = ["tune"]


@click.group()
def tune() -> None:
    """Train an embedder or a reranker.

    The same command again goes on where a run stopped.
    """


def _command(role: Role) -> click.Command:
    @tune.command(role.value, help=f"Train {'an' if role is Role.EMBEDDER else 'a'} {role.value}.")
    @click.option(
        "-f",
        "--file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        required=True,
        help="Settings: see the README.",
    )
    @set_option
    @click.option("--dry-run", is_flag=True, help="Check everything and say what would be done.")
    def run(file: Path, changes: Sequence[str], dry_run: bool) -> None:
        _run(role, file, changed_fields(changes), dry_run)

    return run


for _role in Role:
    _command(_role)


def _run(role: Role, file: Path, overrides: Mapping[str, object], dry_run: bool) -> None:
    let_threads_sleep()
    if find_spec("transformers") is None:
        raise InvalidRequest(
            "embedfleet tune needs the extra `tune`: pip install 'embedfleet[tune]'"
        )
    from embedfleet.tuning.launching import launch
    from embedfleet.tuning.progress import Progress, describe, summary
    from embedfleet.tuning.settings import read_settings

    settings = read_settings(file, role, overrides)
    if dry_run:
        for line in describe(settings):
            note(line)
        return
    with Progress(settings) as progress:
        folder = launch(settings, progress)
    for line in summary(settings, folder):
        note(line)
