"""Slicing, unit length and element types, against numbers worked out by hand and by the peer."""

import math
import struct

import numpy as np
import pytest

from embedfleet.errors import InvalidRequest, NonFiniteResult
from embedfleet.messages import OutputType
from embedfleet.vectors import Finish, check_dimension, finish

RNG = np.random.default_rng(5)


def row(values) -> np.ndarray:
    return np.array([values], np.float32)


def test_slice_first_then_unit_length():
    # 3-4-5: normalising all four components first would leave 0.3 and 0.4
    (data,) = finish(row([3, 4, 5, math.sqrt(50)]), Finish(2)).data
    assert struct.unpack("<2f", data) == pytest.approx((0.6, 0.8), abs=1e-7)


@pytest.mark.parametrize("dimension", [32, 63, 96])
def test_every_row_has_unit_length_at_every_dimension(dimension):
    hidden = RNG.normal(size=(50, 96)).astype(np.float32) * 30
    data = finish(hidden, Finish(dimension, True, OutputType.FLOAT32)).data
    for vector, state in zip(data, hidden, strict=True):
        got = np.frombuffer(vector, "<f4").astype(np.float64)
        wanted = state[:dimension].astype(np.float64)
        assert len(got) == dimension
        np.testing.assert_allclose(got, wanted / math.sqrt((wanted**2).sum()), atol=2e-7)


def test_not_normalised_is_untouched():
    hidden = RNG.normal(size=(3, 40)).astype(np.float32)
    data = finish(hidden, Finish(40, False, OutputType.FLOAT32)).data
    assert b"".join(data) == hidden.astype("<f4").tobytes()


def test_half_precision_is_rounded_once():
    (data,) = finish(row([1.0, 0.1, -2.5]), Finish(3, False, OutputType.FLOAT16)).data
    assert data == struct.pack("<3e", 1.0, 0.1, -2.5)


@pytest.mark.parametrize(
    ("output_type", "expected"),
    [
        # scale 4: 127 * x / 4 = 127, -63.5 (to even: -64), 31.75, 0
        (OutputType.INT8, struct.pack("4b", 127, -64, 32, 0)),
        (OutputType.UINT8, struct.pack("4B", 255, 64, 160, 128)),
    ],
)
def test_bytes_carry_their_scale(output_type, expected):
    result = finish(row([4, -2, 1, 0]), Finish(4, False, output_type))
    assert result.data == [expected]
    assert result.scales == [4.0]


def test_bytes_come_back_within_half_a_step():
    hidden = RNG.normal(size=(20, 64)).astype(np.float32)
    result = finish(hidden, Finish(64, True, OutputType.INT8))
    exact = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    for data, scale, wanted in zip(result.data, result.scales, exact, strict=True):
        back = np.frombuffer(data, np.int8) * (scale / 127)
        assert np.abs(back - wanted).max() <= scale / 127 / 2 + 1e-6


def test_a_vector_of_zeros_has_scale_zero():
    result = finish(row([0, 0]), Finish(2, False, OutputType.UINT8))
    assert (result.data, result.scales) == ([bytes([128, 128])], [0.0])


def test_bits_are_most_significant_first_and_zero_is_not_positive():
    values = [1, -1, 0, 2, -3, -4, 5, 6, -1, -1, -1, -1, -1, -1, -1, 1]
    assert finish(row(values), Finish(16, True, OutputType.UBINARY)).data == [b"\x93\x01"]
    # minus 128 as a signed byte: 0x93 - 128 = 19, 1 - 128 = -127
    assert finish(row(values), Finish(16, True, OutputType.BINARY)).data == [
        struct.pack("2b", 19, -127)
    ]


@pytest.mark.parametrize(
    ("values", "normalize", "output_type"),
    [
        ([math.nan, 1.0], True, OutputType.FLOAT32),
        ([math.inf, 1.0], False, OutputType.FLOAT32),
        ([-math.inf, 1.0], False, OutputType.INT8),
        ([0.0, 0.0], True, OutputType.FLOAT32),  # no direction
        ([1e38, 3e38], True, OutputType.FLOAT32),  # length beyond float32
        ([70_000.0, 1.0], False, OutputType.FLOAT16),
    ],
)
def test_what_is_not_finite_is_an_error_and_its_neighbours_are_not(values, normalize, output_type):
    hidden = np.array([[3, 4], values, [4, 3]], np.float32)
    result = finish(hidden, Finish(2, normalize, output_type))
    first, _, last = result.data
    assert {row: type(error) for row, error in result.errors.items()} == {1: NonFiniteResult}
    assert first == finish(hidden[:1], Finish(2, normalize, output_type)).data[0]
    assert last == finish(hidden[2:], Finish(2, normalize, output_type)).data[0]


def test_what_is_cut_off_does_not_count():
    assert finish(row([3, 4, math.nan]), Finish(2)).errors == {}


def test_no_rows():
    empty = np.empty((0, 64), np.float32)
    assert [finish(empty, Finish(64, True, output_type)).data for output_type in OutputType] == [
        []
    ] * 6


@pytest.mark.parametrize(
    ("dimension", "allowed", "output_type"),
    [
        (32, (), OutputType.FLOAT32),
        (33, (), OutputType.FLOAT32),
        (1024, (), OutputType.BINARY),
        (256, (256, 512), OutputType.INT8),
        (40, (), OutputType.UBINARY),
    ],
)
def test_good_dimensions(dimension, allowed, output_type):
    check_dimension(dimension, 1024, allowed, output_type)


@pytest.mark.parametrize(
    ("dimension", "allowed", "output_type", "why"),
    [
        (0, (), OutputType.FLOAT32, "32 to 1024"),
        (-1, (), OutputType.FLOAT32, "32 to 1024"),
        (31, (), OutputType.FLOAT32, "32 to 1024"),
        (1025, (), OutputType.FLOAT32, "32 to 1024"),
        (128, (512, 256), OutputType.FLOAT32, "256, 512"),
        (100, (), OutputType.BINARY, "Choose 96"),
        (100, (), OutputType.UBINARY, "multiple of 8"),
    ],
)
def test_bad_dimensions(dimension, allowed, output_type, why):
    with pytest.raises(InvalidRequest, match=why) as caught:
        check_dimension(dimension, 1024, allowed, output_type)
    assert caught.value.field == "dimension"
    assert str(dimension) in caught.value.message
