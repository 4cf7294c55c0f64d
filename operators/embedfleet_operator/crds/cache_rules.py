"""What crosses the fields of a cache, in CEL."""

from __future__ import annotations

from typing import Final

from embedfleet.catalog import PUBLISHED
from embedfleet.resources.base import PATTERNS
from embedfleet.resources.model_cache import FILE, CacheSource, Storage
from embedfleet_operator.crds.model_rules import hub_names
from embedfleet_operator.crds.schema import Rule, keys

__all__ = ["CACHE_CHANGES", "CACHE_RULES"]

_SOURCES: Final = tuple(field.alias or "" for field in CacheSource.model_fields.values())

CACHE_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "CacheSource": (
        Rule(
            f".{_SOURCES[0]}",
            f"[{', '.join(f'has(self.{name})' for name in _SOURCES)}].filter(x, x).size() == 1",
            f"exactly one source is needed. Set one of {', '.join(_SOURCES)}.",
        ),
    ),
    "Digests": (
        Rule(
            ".files",
            keys("files", FILE),
            f"paths: {PATTERNS[FILE]}. Correct the path.",
        ),
    ),
    "ModelCacheSpec": (
        Rule(
            ".revision",
            "has(self.source.hub) || !has(self.revision)",
            "only a hub source has revisions. Leave it out: digests identify other files.",
            "self.revision",
        ),
        Rule(
            ".revision",
            "has(self.revision) || !has(self.source.hub) || self.source.hub.name.lowerAscii() in "
            f"{hub_names(m for m in PUBLISHED if m.revision)}",
            "no commit of this source is pinned, and its files can change. Set the 40-digit commit"
            " that you want cached.",
        ),
        Rule(
            ".storage",
            "!has(self.storage) || !(has(self.source.path) || has(self.source.pvc))",
            "files of path and pvc are read where they lie. Leave it out.",
        ),
        Rule(
            ".digests.files",
            "!has(self.source.http) || size(self.digests.files) > 0",
            "a web server cannot be asked which files there are. List each file with its SHA-256.",
        ),
    ),
}


def _storage(field: str, default: str) -> tuple[str, str]:
    """Say in CEL what a field of the storage is now and what it was, written down or not."""
    new, old = (
        f"(has({each}.spec.storage) && has({each}.spec.storage.{field}) ? "
        f"{each}.spec.storage.{field} : {default})"
        for each in ("self", "oldSelf")
    )
    return new, old


_CLASS, _OLD_CLASS = _storage("storageClassName", "''")
_MODE, _OLD_MODE = _storage("accessMode", f"'{Storage().access_mode}'")
_SIZE, _OLD_SIZE = _storage("sizeGib", str(Storage().size_gib))
_NO_CLAIM: Final = "has(oldSelf.spec.source.path) || has(oldSelf.spec.source.pvc)"
_ANOTHER: Final = (
    "of a volume that was claimed cannot change. Create another ModelCache beside it and move its"
    " models over to that."
)

CACHE_CHANGES: Final = (
    Rule(
        ".spec.storage.storageClassName",
        f"{_NO_CLAIM} || {_CLASS} == {_OLD_CLASS}",
        _ANOTHER,
        _CLASS,
    ),
    Rule(".spec.storage.accessMode", f"{_NO_CLAIM} || {_MODE} == {_OLD_MODE}", _ANOTHER, _MODE),
    Rule(
        ".spec.storage.sizeGib",
        f"{_NO_CLAIM} || {_SIZE} >= {_OLD_SIZE}",
        "a volume that was claimed only grows. Raise it, or create another ModelCache beside it and"
        " move its models over to that.",
        _SIZE,
    ),
)
"""What may not change: Kubernetes refuses the same changes of a claim, and for good."""
