"""What the answers of every service share: errors, usage, timings, provenance.

Uses the wire twins, in which text is bytes: a broken text in an answer never costs the rest of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from embedfleet.client.batches import rebase
from embedfleet.client.results import Usage
from embedfleet.errors import ContractMismatch, EmbedfleetError
from embedfleet.messages import OutputType, Provenance, Timings
from embedfleet.status import ItemErrorFields, from_item_error
from embedfleet.wire import common_pb2

__all__ = [
    "OUTPUT_TYPES",
    "broken",
    "optional_bytes",
    "refuse_other_contract",
    "sum_timings",
    "sum_usage",
    "to_error",
    "to_provenance",
    "to_text",
    "to_timings",
    "to_usage",
]

# A newer fleet may know more types than this client can read.
OUTPUT_TYPES = {common_pb2.OutputType.Value(kind.value): kind for kind in OutputType}


def optional_bytes(text: str | None) -> bytes | None:
    """Write a text that may be absent; a lone surrogate is left to the server to refuse."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Read a text of an answer."""
    return data.decode(errors="replace")


def to_error(error: common_pb2.ItemError, start: int) -> EmbedfleetError:
    """Read an item's error; `start` is the batch's place in the whole input."""
    fields = ItemErrorFields(
        error.code, to_text(error.reason), to_text(error.field), to_text(error.message)
    )
    return rebase(from_item_error(fields), start)


def to_usage(usage: common_pb2.Usage) -> Usage:
    """Read what one request cost."""
    return Usage(usage.input_tokens, usage.num_items, usage.num_truncated, usage.num_failed)


def to_timings(timings: common_pb2.Timings) -> Timings:
    """Read where one request's time went."""
    return Timings(
        tokenize_seconds=timings.tokenize_nanoseconds / 1e9,
        queue_seconds=timings.queue_nanoseconds / 1e9,
        compute_seconds=timings.compute_nanoseconds / 1e9,
        total_seconds=timings.total_nanoseconds / 1e9,
    )


def to_provenance(provenance: common_pb2.Provenance) -> Provenance:
    """Read what made a result."""
    return Provenance(
        model=to_text(provenance.model),
        revision=to_text(provenance.revision),
        contract_hash=to_text(provenance.contract_hash),
    )


def sum_usage(parts: Iterable[Usage]) -> Usage:
    """Add up what several requests cost."""
    fields = ((p.input_tokens, p.num_items, p.num_truncated, p.num_failed) for p in parts)
    return Usage(*map(sum, zip(*fields, strict=True)))


def sum_timings(parts: Iterable[Timings]) -> Timings:
    """Add up the times of several requests."""
    fields = (
        (p.tokenize_seconds, p.queue_seconds, p.compute_seconds, p.total_seconds) for p in parts
    )
    return Timings(*map(sum, zip(*fields, strict=True)))


def refuse_other_contract(first: Provenance, other: Provenance) -> None:
    """Raise where two parts of one input come from different vector spaces, as in a rollout."""
    if first.contract_hash != other.contract_hash:
        raise ContractMismatch(
            f"contract_hash was {first.contract_hash} for the first request and "
            f"{other.contract_hash} for a later one: the model changed meanwhile. Start again.",
            field="contract_hash",
        )


def broken(what: str) -> EmbedfleetError:
    """Build the error of an answer that breaks the contract."""
    return EmbedfleetError(
        f"The fleet answered with {what}. Client and fleet are of releases that do not fit."
    )
