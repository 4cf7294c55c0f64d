"""Whether a live object is what the manifest says: nothing is written that is already so.

A manifest says less than the API server keeps: defaults, statuses and others' fields come on top.
So every value that it says must be there, and a digest of the whole manifest, kept on the object,
tells when something is no longer said. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedfleet_operator.rendering import Manifest

__all__ = ["DIGEST_ANNOTATION", "covers", "is_applied", "owned_by", "owner", "signed"]

DIGEST_ANNOTATION: Final = "embedfleet.io/manifest-digest"


def signed(manifest: Manifest, owner_reference: Mapping[str, Any]) -> Manifest:
    """Complete a rendered manifest: who owns it, and its digest."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), DIGEST_ANNOTATION: digest}
    owners = [dict(owner_reference)]
    return {
        **manifest,
        "metadata": {**metadata, "annotations": annotations, "ownerReferences": owners},
    }


def owner(raw: Manifest) -> dict[str, Any]:
    """Refer to a resource as the controller of what is made for it."""
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "name": raw["metadata"]["name"],
        "uid": raw["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_by(live: Manifest, uid: str) -> bool:
    """Whether an object was made for a resource."""
    return any(each["uid"] == uid for each in live["metadata"].get("ownerReferences", ()))


def is_applied(live: Manifest | None, manifest: Manifest) -> bool:
    """Whether applying a signed manifest would change nothing."""
    return live is not None and covers(live, manifest)


def covers(live: Any, said: Any) -> bool:
    """Whether every value that is said is there.

    Lists of things with names are compared by name, others entry by entry; what is empty may be
    missing, since Go leaves it out.
    """
    if isinstance(said, str):
        return live == said or (live is None and not said)
    if isinstance(said, Mapping):
        if live is None:
            return not said
        return isinstance(live, Mapping) and all(covers(live.get(k), v) for k, v in said.items())
    if isinstance(said, Sequence):
        return _covers_list(live, said)
    return bool(live == said and isinstance(live, bool) == isinstance(said, bool))


def _covers_list(live: Any, said: Sequence[Any]) -> bool:
    if live is None:
        return not said
    if not isinstance(live, Sequence) or isinstance(live, str):
        return False
    if said and all(isinstance(each, Mapping) and "name" in each for each in said):
        named = (each for each in live if isinstance(each, Mapping))
        by_name = {str(each.get("name")): each for each in named}
        return all(covers(by_name.get(each["name"]), each) for each in said)
    return len(live) == len(said) and all(map(covers, live, said))
