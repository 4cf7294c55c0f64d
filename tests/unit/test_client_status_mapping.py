"""Every error survives the way through a gRPC status or an item error."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from embedfleet import errors
from embedfleet.status import (
    DOMAIN,
    ItemErrorFields,
    from_item_error,
    from_status,
    to_item_error,
    to_status,
)

TREE = [
    getattr(errors, name)
    for name in errors.__all__
    if name != "Problem" and name != "EmbedfleetError"
]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_class_comes_back_from_its_status(kind):
    sent = kind("items[3].text is empty", field="items[3].text", retry_after_seconds=0.25)
    status = to_status(sent)
    got = from_status(grpc.StatusCode[kind.code], status.message, status)
    assert type(got) is kind
    assert (got.message, got.field) == ("items[3].text is empty", "items[3].text")
    assert got.retry_after_seconds == (0.25 if kind.retryable else None)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_class_comes_back_from_an_item(kind):
    got = from_item_error(to_item_error(kind("too long", field="items[0].text")))
    assert type(got) is kind
    assert (got.message, got.field) == ("too long", "items[0].text")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("x"), 3),
        (errors.DeadlineExceeded("x"), 4),
        (errors.ModelNotFound("x"), 5),
        (errors.Overloaded("x"), 8),
        (errors.ContractMismatch("x"), 9),
        (errors.Unsupported("x"), 12),
        (errors.EngineError("x"), 13),
        (errors.Unavailable("x"), 14),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_codes_are_those_of_google_rpc(error, code):
    assert to_status(error).code == code
    assert to_item_error(error).code == code


def test_details_name_reason_domain_field_and_delay():
    status = to_status(errors.Overloaded("queue full", field="items", retry_after_seconds=1.5))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "OVERLOADED",
        "embedfleet.io",
        {"field": "items"},
    )
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)


def test_an_invalid_argument_points_at_its_field():
    status = to_status(errors.InvalidRequest("dimension is 31", field="dimension"))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("dimension", "dimension is 31")
    ]


@pytest.mark.parametrize(
    ("code", "kind", "retryable", "why"),
    [
        ("UNAVAILABLE", errors.Unavailable, True, "a proxy without a backend"),
        ("RESOURCE_EXHAUSTED", errors.TooLarge, False, "gRPC's own size limit"),
        ("UNIMPLEMENTED", errors.Unsupported, False, "no such method"),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded, False, "gRPC's own timer"),
        ("INTERNAL", errors.EmbedfleetError, False, "a crash nobody described"),
        ("UNAUTHENTICATED", errors.EmbedfleetError, False, "no class: text keeps the code"),
        ("FAILED_PRECONDITION", errors.EmbedfleetError, False, "two classes share the code"),
    ],
)
def test_a_bare_code_is_read_with_care(code, kind, retryable, why):
    got = from_status(grpc.StatusCode[code], "said so", None)
    assert (type(got), got.retryable) == (kind, retryable), why
    assert "said so" in got.message
    if kind is errors.EmbedfleetError:
        assert code in got.message


def test_exhaustion_with_a_delay_is_overload():
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(200)
    status = status_pb2.Status(code=8, message="slow down")
    status.details.add().Pack(retry)
    got = from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", status)
    assert type(got) is errors.Overloaded
    assert got.retry_after_seconds == 0.2


def test_another_domains_reason_is_not_ours():
    status = status_pb2.Status(code=14, message="x")
    info = error_details_pb2.ErrorInfo(reason="ENGINE_ERROR", domain="elsewhere.io")
    status.details.add().Pack(info)
    assert info.domain != DOMAIN
    got = from_status(grpc.StatusCode.UNAVAILABLE, "x", status)
    assert type(got) is errors.Unavailable


@pytest.mark.parametrize("text", ["é" * 5000, "x" * 5000, "\ud800" * 3000])
def test_a_status_fits_into_headers(text):
    status = to_status(errors.InvalidRequest(text, field=text))
    assert len(status.message.encode()) <= 1024
    assert status.ByteSize() < 4096


def test_an_item_of_a_newer_release_keeps_its_text():
    got = from_item_error(ItemErrorFields(99, "FUTURE_REASON", "items[0]", "new trouble"))
    assert type(got) is errors.EmbedfleetError
    assert got.message == "UNKNOWN: new trouble"
    assert got.field == "items[0]"
