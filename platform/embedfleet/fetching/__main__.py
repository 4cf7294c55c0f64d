"""The program of a ModelCache's Job: `python -m embedfleet.fetching SPEC FOLDER`.

Its last words are a line of JSON for whoever watches the pod. It exits with 0 when the files are
there, with 1 when another attempt may help, and with 2 when none will.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
from pydantic import ValidationError

from embedfleet.config import Settings
from embedfleet.errors import DigestMismatch, EmbedfleetError, FetchFailed, SecretMissing
from embedfleet.fetching.fetch import fetch
from embedfleet.fetching.parts import Progress
from embedfleet.rendering.cache import EXIT_FINAL, EXIT_RETRY, CacheReport, FetchResult
from embedfleet.resources.model_cache import ModelCacheSpec


@click.command()
@click.argument("spec")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    default=Path("/dev/termination-log"),
    show_default=True,
    help="File for the result, which is what the kubelet picks up.",
)
def main(spec: str, folder: Path, report: Path) -> None:
    """Fetch a model into FOLDER; SPEC is a ModelCache's spec as JSON."""
    # A container's first process is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_RETRY))
    try:
        said, code = _fetched(spec, folder), 0
    except EmbedfleetError as error:
        said = CacheReport(result=_result(error), message=error.message)
        code = EXIT_RETRY if error.retryable else EXIT_FINAL
    except OSError as error:
        text = f"{error.filename or folder}: {error.strerror or error}. Look at the volume."
        said, code = CacheReport(result=FetchResult.FETCH_FAILED, message=text), EXIT_RETRY
    click.echo(said.message, err=bool(code))
    report.write_text(said.to_text())
    sys.exit(code)


def _fetched(text: str, folder: Path) -> CacheReport:
    try:
        spec = ModelCacheSpec.model_validate_json(text)
    except ValidationError as error:
        raise FetchFailed(f"SPEC is no spec of a ModelCache: {error}") from error
    found = fetch(spec, folder, Settings.load().environment, Progress(click.echo))
    return CacheReport(
        result=FetchResult.FETCHED,
        message=f"{len(found.files)} files are in {folder}.",
        num_bytes=found.num_bytes,
        revision=found.revision,
        weights_digest=found.weights_digest,
        tokenizer_digest=found.tokenizer_digest,
    )


def _result(error: EmbedfleetError) -> FetchResult:
    match error:
        case DigestMismatch():
            return FetchResult.DIGEST_MISMATCH
        case SecretMissing():
            return FetchResult.SECRET_MISSING
    return FetchResult.FETCH_FAILED


if __name__ == "__main__":
    main()
