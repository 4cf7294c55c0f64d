"""Whose an object is whose name the operator needs: its own, or one that must be left alone.

Applying to an object of somebody else would make it what the manifest says, and deleting its new
owner would delete it, data included.
"""

from __future__ import annotations

from collections.abc import Sequence

from embedfleet_operator.conditions.reasons import Reason
from embedfleet_operator.conditions.verdicts import Refusal
from embedfleet_operator.deciding.differences import owned_by
from embedfleet_operator.rendering.manifests import MANAGED_BY, Manifest

__all__ = ["NameTaken", "is_ours"]


class NameTaken(Exception):
    """Objects that a resource needs are there and are others'.

    Attributes:
        refusal: What is said of the resource.
    """

    def __init__(self, resource: Manifest, taken: Sequence[Manifest]) -> None:
        names = ", ".join(f"{each['kind']}/{each['metadata']['name']}" for each in taken)
        ref = f"{resource['kind']}/{resource['metadata']['name']}"
        message = (
            f"{names}: there already in this namespace, and not made by this operator. {ref} would "
            f"change what is there, and delete it when {ref} goes. Give {ref} another name, or "
            f"delete what is there, or hand it over: label it {'='.join(MANAGED_BY)}."
        )
        super().__init__(message)
        self.refusal = Refusal(Reason.NAME_TAKEN, message)


def is_ours(live: Manifest, uid: str) -> bool:
    """Whether an object was made for the resource of a uid, or carries this operator's label."""
    key, value = MANAGED_BY
    labels = live["metadata"].get("labels") or {}
    return labels.get(key) == value or owned_by(live, uid)
