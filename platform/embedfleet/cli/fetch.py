"""`embedfleet fetch`: a model's files into a folder of this machine, checked and resumable."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from embedfleet.cli.options import files_option
from embedfleet.config import Settings
from embedfleet.errors import InvalidManifest
from embedfleet.resources import ModelCache, load_manifests

__all__ = ["fetch"]


@click.command()
@files_option
@click.option("--cache", "name", help="Name of the ModelCache, where there are several.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the files; empty, or one that an earlier fetch began.",
)
def fetch(files: tuple[str, ...], name: str | None, folder: Path) -> None:
    """Fetch a model's files into a folder.

    The manifest's ModelCache says where they lie and what they must be. What is there already is
    kept, and what is not what the digests say is refused. Serve the folder with
    `model: {source: FOLDER}`. Credentials are read from the environment: HF_TOKEN,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT_KEY.
    """
    cache = _choose(load_manifests(files, sys.stdin).caches, name)
    if cache.spec.in_place:
        raise InvalidManifest(
            f"ModelCache/{cache.name} is read where it lies, so there is nothing to fetch. Name "
            "its folder as model.source.",
            field="spec.source",
        )
    # Here, because it loads a tensor library.
    from embedfleet.fetching.fetch import fetch as fetch_model
    from embedfleet.fetching.parts import Progress

    folder = folder.absolute()
    found = fetch_model(cache.spec, folder, Settings.load().environment, Progress(click.echo))
    click.echo(f"weights   {found.weights_digest}\ntokenizer {found.tokenizer_digest}")
    click.echo(f"serve it with  model: {{source: {folder}}}")


def _choose(caches: Sequence[ModelCache], name: str | None) -> ModelCache:
    found = [each for each in caches if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in caches) or "none"
    raise InvalidManifest(
        f"kind ModelCache: exactly one is needed, found {names}. "
        + ("Choose one with --cache." if len(found) > 1 else "Give a manifest that has it.")
    )
