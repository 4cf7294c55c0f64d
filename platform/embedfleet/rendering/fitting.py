"""Whether a loaded model can do what its settings make the default, before they are taken over.

A manifest alone does not tell: only the files of a folder or a cache say how wide a model is, and
only its tokenizer how long a prompt is. Knows no requests: it judges those that ask for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedfleet.catalog import MIN_DIMENSION
from embedfleet.errors import InvalidManifest
from embedfleet.messages import Role
from embedfleet.rendering.replica import ReplicaSettings

__all__ = ["FITTED", "check_dimensions", "check_pair", "to_be_fitted"]

FITTED: Final = ("default_dimension", "allowed_dimensions", "default_output_type")
"""Settings of an embedder that its replicas hold against the width of their checkpoint."""

_CHECKPOINT: Final = ("source", "revision", "folder")


def to_be_fitted(before: Mapping[str, Any], after: Mapping[str, Any]) -> ReplicaSettings | None:
    """Give what running embedders are to take over and may not be able to do; None if nothing is.

    Serve stops a replica that refuses settings, so whoever hands them over asks before. What a
    replica of another checkpoint can do, none that runs can tell.

    Args:
        before: The application as Serve was given it.
        after: As it is to be given.
    """
    was, becomes = before["args"], after["args"]
    if becomes.get("role") != Role.EMBEDDER:
        return None
    if any(was.get(field) != becomes.get(field) for field in _CHECKPOINT):
        return None
    old, new = (each["deployments"][0].get("user_config") or {} for each in (before, after))
    if all(old.get(field) == new.get(field) for field in FITTED):
        return None
    return ReplicaSettings.model_validate(new)


def check_dimensions(settings: ReplicaSettings, native: int) -> None:
    """Hold an embedder's dimensions against the width of its hidden state.

    Raises:
        InvalidManifest: A request that names no dimension would fail, or one that names an allowed.
    """
    default = settings.default_dimension or native
    allowed = settings.allowed_dimensions
    places = {f"spec.allowedDimensions[{i}]": each for i, each in enumerate(allowed)}
    for field, dimension in {"spec.dimension": default, **places}.items():
        if dimension > native:
            raise _refused(
                field,
                dimension,
                f"this checkpoint gives {min(MIN_DIMENSION, native)} to {native}. Lower it, or "
                "serve a larger model.",
            )
    if allowed and default not in allowed:
        raise _refused(
            "spec.allowedDimensions",
            list(allowed),
            f"must contain the default dimension, {default}. Add it, or set spec.dimension to one "
            "that is listed.",
        )
    output = settings.default_output_type
    if output.packs_bits and default % 8:
        raise _refused(
            "spec.quantization.output",
            output,
            f"packs eight components to a byte, and the default dimension is {default}. Set "
            f"spec.dimension to {default - default % 8}, or another output.",
        )


def check_pair(max_tokens: int, least_tokens: int) -> None:
    """Hold a reranker's longest pair against its shortest.

    Args:
        max_tokens: The longest.
        least_tokens: What a query and a document of one token take with the default instruction.

    Raises:
        InvalidManifest: Every request that brings no instruction would fail.
    """
    if least_tokens > max_tokens:
        raise _refused(
            "spec.maxPairTokens",
            max_tokens,
            f"a query and a document of one token each take {least_tokens} with the prompt and "
            "spec.instruction.default. Raise it, or shorten the instruction.",
        )


def _refused(field: str, value: object, why: str) -> InvalidManifest:
    return InvalidManifest(f"{field} is {value}: {why}", field=field)
