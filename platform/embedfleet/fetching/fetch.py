"""A model's files into a folder: gathered, held to their digests, and only then put in place.

Fetching again what is there does nothing; fetching on after any interruption does the rest. What
is served from the folder never changes: another model is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from embedfleet.errors import CheckpointError, FetchFailed
from embedfleet.fetching.connecting import connect
from embedfleet.fetching.inspecting import check, expected_files, identity, in_place, inspect
from embedfleet.fetching.marker import Fetched, read_marker, write_marker
from embedfleet.fetching.parts import Progress, complete, mebibytes
from embedfleet.fetching.source import RemoteFile, Source, chosen
from embedfleet.fetching.staging import Staging, staging_in
from embedfleet.resources.model_cache import ModelCacheSpec

__all__ = ["fetch"]

_OF_A_FILE_SYSTEM: Final = "lost+found"


def fetch(
    spec: ModelCacheSpec, folder: Path, environment: Mapping[str, str], progress: Progress
) -> Fetched:
    """Bring a model into a folder, or check it there where it is read in place.

    Args:
        spec: Where the files come from and what they must be.
        folder: Of the model; for a source that is read in place, where that is to be found.
        environment: Holds credentials.
        progress: Told what goes on.

    Raises:
        CheckpointError: The files are no model that can be loaded.
        DigestMismatch: They are not those whose digests are given.
        FetchFailed: They cannot be had, or the folder holds another model.
        FetchInterrupted: The source broke off; what came is kept for the next attempt.
        SecretMissing: Credentials are not there.
    """
    if spec.in_place:
        return in_place(folder, spec)
    kept = read_marker(folder)
    if kept is not None:
        progress.report(f"{folder} holds {kept.identity} already")
        return _kept(kept, spec, folder)
    with staging_in(folder) as staging:
        staging.keep_only(identity(spec))
        staged = read_marker(staging.folder)
        if staged is None:
            _refuse_strangers(folder)
            staged = _gather(spec, staging, environment, progress)
        check(staged, spec.digests)
        staging.place(staged)
    progress.report(f"{len(staged.files)} files, {mebibytes(staged.num_bytes)}, are in {folder}")
    return staged


def _kept(kept: Fetched, spec: ModelCacheSpec, folder: Path) -> Fetched:
    if kept.identity != identity(spec):
        raise FetchFailed(
            f"{folder} holds {kept.identity}, and {identity(spec)} is wanted: files that replicas "
            "may be reading are never replaced. Fetch into an empty folder, in a cluster with "
            "another ModelCache."
        )
    for path in kept.files:
        if not (folder / path).is_file():
            raise FetchFailed(
                f"{folder / path} was fetched and is gone. Empty the folder and fetch again."
            )
    check(kept, spec.digests)
    return kept


def _refuse_strangers(folder: Path) -> None:
    """Files of another model beside this one's would be loaded with it."""
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    strangers = [name for name in names if name != _OF_A_FILE_SYSTEM]
    if strangers:
        raise FetchFailed(
            f"{folder} holds {strangers[0]}, which no fetch put there. Give an empty folder."
        )


def _gather(
    spec: ModelCacheSpec, staging: Staging, environment: Mapping[str, str], progress: Progress
) -> Fetched:
    """Fetch what is missing and check the whole; what is no model is not kept."""
    with connect(spec, environment) as source:
        files = chosen(source.files(), expected_files(spec.digests))
        missing = [file for file in files if not staging.whole(file)]
        _check_room(missing, staging)
        for number, file in enumerate(missing, start=1):
            _fetch_one(source, file, staging, progress)
            progress.report(f"{file.path} is there, {number} of {len(missing)}")
    try:
        hashes = {file.path: staging.whole(file) for file in files}
        fetched = inspect(staging.files, spec, hashes)
    except CheckpointError:
        staging.clear()
        raise
    write_marker(staging.folder, fetched)
    return fetched


def _fetch_one(source: Source, file: RemoteFile, staging: Staging, progress: Progress) -> None:
    staging.take(file, complete(source, file, staging.part(file), progress))


def _check_room(missing: Sequence[RemoteFile], staging: Staging) -> None:
    parts = [staging.part(file) for file in missing]
    have = sum(part.stat().st_size for part in parts if part.exists())
    needed = sum(file.num_bytes or 0 for file in missing) - have
    free = shutil.disk_usage(staging.folder).free
    if needed > free:
        raise FetchFailed(
            f"{mebibytes(needed)} are to be fetched and {mebibytes(free)} are free. Raise "
            "spec.storage.sizeGib, or choose a larger disk.",
            field="spec.storage.sizeGib",
        )
