"""What lies in a folder: that it is a model which can be loaded, and its digests.

A cache does not know what its model is served as, and a reranker's weights may hold a head that an
embedder of the same files leaves out. Where that makes two digests, either may be expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from embedfleet.catalog import published
from embedfleet.checkpoint import Checkpoint, open_checkpoint
from embedfleet.errors import CheckpointError, FetchFailed
from embedfleet.fetching.marker import Fetched, cached
from embedfleet.fetching.parts import sha256_of
from embedfleet.fetching.source import mismatch
from embedfleet.messages import Role
from embedfleet.resources.model_cache import Digests, ModelCacheSpec
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE

__all__ = ["check", "expected_files", "identity", "in_place", "inspect"]

_SUFFIXES: Final = (".safetensors", ".json")


def identity(spec: ModelCacheSpec) -> str:
    """Say in one line which files are meant; whose credentials read them does not matter."""
    (kind,) = spec.source.given
    fields = getattr(spec.source, kind).model_dump(exclude_none=True)
    words = [f"{name}={value}" for name, value in fields.items() if "secret" not in name]
    if spec.commit:
        words.append(f"revision={spec.commit}")
    if spec.source.http is not None:
        words += [f"{file}={digest}" for file, digest in sorted(spec.digests.files.items())]
    return " ".join((kind, *words))


def inspect(folder: Path, spec: ModelCacheSpec, files: Mapping[str, str]) -> Fetched:
    """Check a folder's model and take its digests.

    `files` are the SHA-256 of what belongs to it, by path.

    Raises:
        CheckpointError: It cannot be loaded.
        DigestMismatch: It is another model than the manifest says.
    """
    found = _weights_digests(folder, spec)
    expected = spec.digests.weights
    if expected is not None and expected not in found:
        raise mismatch("the weights", expected, " or ".join(found))
    return Fetched(
        identity=identity(spec),
        num_bytes=sum((folder / path).stat().st_size for path in files),
        revision=spec.commit,
        weights_digest=expected or found[0],
        tokenizer_digest=files[TOKENIZER_FILE],
        files=dict(sorted(files.items())),
    )


def in_place(folder: Path, spec: ModelCacheSpec) -> Fetched:
    """Check a model where it lies.

    Raises:
        CheckpointError: It cannot be loaded, or is still being fetched into.
        DigestMismatch: It is not the one that the manifest says.
        FetchFailed: The folder, or a file that the manifest lists, is missing.
    """
    if not folder.is_dir():
        raise FetchFailed(
            f"{folder} is not a folder here. Correct the folder of spec.source."
            f"{spec.source.given[0]}."
        )
    cached(folder)
    paths = {path.name for path in folder.iterdir() if path.suffix in _SUFFIXES}
    # What stands for a fetch that was made here is no part of the model.
    paths = {name for name in paths if not name.startswith(".")} | spec.digests.files.keys()
    for path in sorted(paths):
        if not (folder / path).is_file():
            raise FetchFailed(
                f"{folder / path} is not there, and spec.digests.files lists it. Correct the path.",
                field="spec.digests.files",
            )
    files = {path: sha256_of(folder / path) for path in sorted(paths)}
    _check_files(spec.digests, files)
    return inspect(folder, spec, files)


def check(kept: Fetched, digests: Digests) -> None:
    """Hold a model that was fetched before to what the manifest says now.

    Raises:
        DigestMismatch: It is another.
    """
    _check_files(digests, kept.files)
    if digests.weights not in (None, kept.weights_digest):
        raise mismatch("the weights", str(digests.weights), kept.weights_digest)


def expected_files(digests: Digests) -> dict[str, str]:
    """Give what is said of files, the tokenizer among them."""
    tokenizer = {} if digests.tokenizer is None else {TOKENIZER_FILE: digests.tokenizer}
    for path, expected in tokenizer.items():
        if digests.files.get(path, expected) != expected:
            raise mismatch("digests.tokenizer", expected, digests.files[path])
    return {**tokenizer, **digests.files}


def _check_files(digests: Digests, found: Mapping[str, str]) -> None:
    for path, expected in expected_files(digests).items():
        if found.get(path) != expected:
            raise mismatch(path, expected, found.get(path, "of no file"))


def _weights_digests(folder: Path, spec: ModelCacheSpec) -> list[str]:
    """Take the digest as each role has it that can load the files; the reranker's first."""
    known = published(spec.source.hub.name) if spec.source.hub else None
    roles = [known.role] if known else [Role.RERANKER, Role.EMBEDDER]
    usable: dict[frozenset[str], Checkpoint] = {}
    refusal: CheckpointError | None = None
    for role in roles:
        try:
            checkpoint = open_checkpoint(folder, role)
            checkpoint.load_tokenizer()
        except CheckpointError as error:
            refusal = error
        else:
            usable.setdefault(frozenset(each.name for each in checkpoint.stored), checkpoint)
    if not usable and refusal is not None:
        raise refusal
    return [each.weights_digest for each in usable.values()]
