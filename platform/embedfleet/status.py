"""Errors of the platform as gRPC statuses and item errors, and back.

The one place where the error tree meets `google.rpc`, used by both ends of a call so that neither
imports the other. It knows no call, no channel and no retry. The details follow google/rpc's
error_details.proto: `ErrorInfo` names the class and the field, `RetryInfo` says when to come back,
`BadRequest` points at the field.
"""

from __future__ import annotations

from typing import NamedTuple

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from embedfleet import errors
from embedfleet.errors import EmbedfleetError

__all__ = [
    "DOMAIN",
    "ItemErrorFields",
    "from_item_error",
    "from_status",
    "to_item_error",
    "to_status",
]

DOMAIN = "embedfleet.io"

# A status travels in headers, up to four times over (text, percent-encoded; details, base64), and
# peers refuse headers over 8 KiB.
MAX_MESSAGE_BYTES = 1024
MAX_FIELD_BYTES = 256

_TREE: tuple[type[EmbedfleetError], ...] = tuple(
    kind
    for kind in (getattr(errors, name) for name in errors.__all__)
    if isinstance(kind, type) and issubclass(kind, EmbedfleetError)
)
_BY_REASON = {kind("").reason: kind for kind in _TREE}

# What a bare code means when nobody says more, as from a proxy or from gRPC itself. Exhaustion is
# then a size limit, which no retry mends: the platform's own overload always names its reason.
_BY_CODE: dict[str, type[EmbedfleetError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "NOT_FOUND": errors.ModelNotFound,
    "UNIMPLEMENTED": errors.Unsupported,
    "RESOURCE_EXHAUSTED": errors.TooLarge,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CANCELLED": errors.Cancelled,
    "UNAVAILABLE": errors.Unavailable,
}


class ItemErrorFields(NamedTuple):
    """The fields of the wire's `ItemError`, whichever generated class carries them."""

    code: int
    reason: str
    field: str
    message: str


def to_status(error: EmbedfleetError) -> status_pb2.Status:
    """Describe an error as the status of a failed call.

    The message is cut at 1,024 bytes and the field at 256, so that the status fits into headers.
    """
    message = _cut(error.message, MAX_MESSAGE_BYTES)
    field = _cut(error.field, MAX_FIELD_BYTES)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message)
    metadata = {"field": field} if field else {}
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    )
    if error.retryable and error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(max(0, round(error.retry_after_seconds * 1e9)))
        status.details.add().Pack(retry)
    if field and error.code == "INVALID_ARGUMENT":
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=field, description=message)
        status.details.add().Pack(bad)
    return status


def from_status(
    code: grpc.StatusCode, message: str, status: status_pb2.Status | None = None
) -> EmbedfleetError:
    """Build the error that a failed call's status describes.

    Args:
        code: The call's code.
        message: The call's own text.
        status: The details, where the call carried any; another domain's are not read.
    """
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details if status is not None else ():
        for known in (info, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    hinted = retry.HasField("retry_delay")
    ours = info.domain == DOMAIN
    error = _build(
        code.name,
        reason=info.reason if ours else "",
        field=info.metadata.get("field", "") if ours else "",
        message=message,
        hinted=hinted,
    )
    if hinted and error.retryable:
        error.retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return error


def to_item_error(error: EmbedfleetError) -> ItemErrorFields:
    """Describe an error as the reason why one item has no result."""
    code: int = code_pb2.Code.Value(error.code)
    return ItemErrorFields(code, error.reason, error.field, error.message)


def from_item_error(fields: ItemErrorFields) -> EmbedfleetError:
    """Build the error that an item's fields describe; an unknown code counts as UNKNOWN."""
    known = fields.code in code_pb2.Code.values()
    name: str = code_pb2.Code.Name(fields.code) if known else "UNKNOWN"
    return _build(
        name, reason=fields.reason, field=fields.field, message=fields.message, hinted=False
    )


def _build(code: str, *, reason: str, field: str, message: str, hinted: bool) -> EmbedfleetError:
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code)
    if kind is errors.TooLarge and hinted:
        kind = errors.Overloaded
    if kind is None:
        # No class has this code: the text is then the only place that can keep it.
        return EmbedfleetError(f"{code}: {message or 'no message'}", field=field)
    return kind(message or code, field=field)


def _cut(text: str, limit: int) -> str:
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode(errors="ignore") + "…"
