"""Which checkpoint a model is: a published size, a hub name with its commit, local files, a cache.

A cache says where the files lie. What they are is said by source or size; where neither is given,
their digests are the model's identity, as with a local folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from embedfleet.catalog import PUBLISHED, PublishedModel, published
from embedfleet.messages import Role
from embedfleet.resources.base import PATTERNS, Name, Part, Violation

__all__ = [
    "MODEL_CHOICE",
    "ModelSource",
    "Size",
    "cached_folder",
    "is_local",
    "source_violations",
    "unpinned",
]

_SOURCE: Final = (
    r"^([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*|(file://)?/[^\p{Z}\p{Cc},]+)$"
)
_REVISION: Final = r"^[0-9a-f]{40}$"
PATTERNS[_SOURCE] = (
    "must be a hub name such as Qwen/Qwen3-Embedding-0.6B, an absolute folder, a file:/// address,"
    " or embedded/NAME"
)
PATTERNS[_REVISION] = (
    "must be a commit of 40 lower-case hex digits: branches and tags can move under an index"
)

MODEL_CHOICE: Final = ("model.source", "model.size")
"""Fields that say which published model is meant, as rules that rest on it name them."""


class Size(StrEnum):
    """Published sizes of the family."""

    SMALL = "0.6B"
    MEDIUM = "4B"
    LARGE = "8B"


def is_local(source: str) -> bool:
    """Tell a folder, a `file://` address or an embedded model from a name on the hub."""
    return source.startswith(("/", "file://", "embedded/"))


def cached_folder(cache: str) -> str:
    """Give the folder in which replicas find the files of a ModelCache."""
    return f"/models/{cache}"


class ModelSource(Part):
    """Which checkpoint is served."""

    source: Annotated[str, Field(pattern=_SOURCE, max_length=1024)] | None = None
    """Hub name, absolute folder, `file:///` address, or `embedded/NAME`. Or give `size`."""
    size: Size | None = None
    """Published size of the family; short for its hub name."""
    revision: Annotated[str, Field(pattern=_REVISION, max_length=40)] | None = None
    """Commit of a hub source. Needed unless the release knows a pinned one."""
    cache: Name | None = None
    """ModelCache that holds the files: replicas load from its volume, never from the network."""

    def published(self, role: Role) -> PublishedModel | None:
        """Find the published model that this names, if it is one."""
        if self.source is not None:
            return published(self.source)
        return next((m for m in PUBLISHED if m.role is role and m.size == self.size), None)


def source_violations(model: ModelSource) -> Iterator[Violation]:
    """Yield what is wrong in a spec that names its checkpoint as `model`, whatever its role."""
    if model.source is None:
        if model.size is None:
            yield from _cache_alone(model)
        return
    known = published(model.source)
    if model.size and (known is None or known.size != model.size):
        yield Violation(
            "model.size", str(model.size), f"does not describe source {model.source}",
            "Leave out one of the two.", ("model.source",),
        )  # fmt: skip
    if model.revision and is_local(model.source):
        yield Violation(
            "model.revision", model.revision, f"{model.source} is local and has no revisions",
            "Leave it out: digests identify local files.", ("model.source",),
        )  # fmt: skip
    if model.cache and is_local(model.source):
        yield Violation(
            "model.cache", model.cache, f"{model.source} is local, so nothing has to be cached",
            "Leave out one of the two.", ("model.source",),
        )  # fmt: skip
    if not model.revision and not is_local(model.source) and not known:
        yield unpinned(model.source)


def _cache_alone(model: ModelSource) -> Iterator[Violation]:
    if model.cache is None:
        yield Violation(
            "model.source", "missing", "a model needs source, size or cache",
            "Set one, such as size: 0.6B.", ("model.size", "model.cache"),
        )  # fmt: skip
    elif model.revision:
        yield Violation(
            "model.revision", model.revision, "the ModelCache says which commit is cached",
            "Leave it out, or name the source that it is a commit of.", ("model.cache",),
        )  # fmt: skip


def unpinned(source: str) -> Violation:
    """Refuse a hub source whose commit nobody says."""
    return Violation(
        "model.revision", "missing", f"no commit of {source} is pinned, and its files can change",
        "Set the 40-digit commit that you want served.", ("model",),
    )  # fmt: skip
