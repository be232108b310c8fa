from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.header.checksum import (
    checksum,
    finish,
    fold,
    pseudo_header,
    sum_of,
    transport_checksum,
    update,
)

from .header_samples import IPV4, IPV6, U16, quick


def naive_checksum(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_the_example_of_rfc_1071_comes_out_as_printed() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert fold(sum_of(data)) == 0xDDF2
    assert checksum(data) == 0x220D


def test_the_example_of_rfc_1071_does_not_mind_where_it_is_cut() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    for first in range(9):
        for second in range(first, 9):
            assert checksum(data[:first], data[first:second], data[second:]) == 0x220D


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (b"\0" * 20, 0xFFFF),
        (b"\xff\xff", 0x0000),
        (b"\xff\xff" * 700, 0x0000),
        (b"\x80\0\x7f\xff", 0x0000),
        (b"\x01", 0xFEFF),
        (b"\0\0\x01", 0xFEFF),
    ],
)
def test_zero_and_all_ones_are_kept_apart(data: bytes, expected: int) -> None:
    assert checksum(data) == naive_checksum(data) == expected


@quick
@given(st.lists(st.binary(max_size=70), max_size=5))
def test_pieces_of_any_length_add_up_to_the_whole(pieces: list[bytes]) -> None:
    expected = naive_checksum(b"".join(pieces))
    assert checksum(*pieces) == expected
    assert checksum(*map(bytearray, pieces)) == expected
    assert checksum(*[memoryview(piece) for piece in pieces]) == expected


@pytest.mark.parametrize(
    "length",
    [
        *(700, 701, 702, 767, 768, 769, 1447, 1448, 1460, 1499, 1500, 1535, 1536, 1537, 1538),
        *(2047, 2048, 4095, 4096, 4097, 4098, 6143, 6144, 65159, 65535),
    ],
)
def test_large_buffers_are_summed_as_small_ones_are(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert checksum(data) == naive_checksum(data)
    assert checksum(memoryview(data)[1:]) == naive_checksum(data[1:])
    assert checksum(bytes(length)) == 0xFFFF
    assert checksum(b"\xff" * length) == naive_checksum(b"\xff" * length)
    for at in (0, length // 2, length - 1):  # in each part of what is added in parts
        lonely = bytes(at) + b"\x81" + bytes(length - 1 - at)
        assert checksum(lonely) == naive_checksum(lonely)


@quick
@given(st.binary(min_size=2, max_size=64), U16, st.integers(0))
def test_an_updated_checksum_is_the_one_of_the_changed_data(
    data: bytes, new: int, where: int
) -> None:
    data = data[: len(data) & ~1]
    at = where % (len(data) // 2) * 2
    changed = data[:at] + new.to_bytes(2, "big") + data[at + 2 :]
    if any(data) and any(changed):  # all-zero data is the one case RFC 1624 cannot see
        old = int.from_bytes(data[at : at + 2], "big")
        assert update(checksum(data), old, new) == checksum(changed)


@quick
@given(st.one_of(st.tuples(IPV4, IPV4), st.tuples(IPV6, IPV6)), st.integers(0, 255), U16)
def test_pseudo_headers_are_those_of_the_rfcs(
    addresses: tuple[bytes, bytes], protocol: int, length: int
) -> None:
    source, destination = addresses
    layout = "!BBH" if len(source) == 4 else "!xxHxxxB"
    numbers = (0, protocol, length) if len(source) == 4 else (length, protocol)
    expected = naive_checksum(source + destination + struct.pack(layout, *numbers))
    if any(source + destination) or protocol or length:
        assert finish(pseudo_header(source, destination, protocol, length)) == expected


def test_the_length_of_an_ipv6_jumbo_counts_in_full() -> None:
    pseudo = bytes(32) + struct.pack("!IxxxB", 0x12345, 6)
    assert finish(pseudo_header(bytes(16), bytes(16), 6, 0x12345)) == naive_checksum(pseudo)


@quick
@given(IPV6, IPV6, st.binary(max_size=61), st.binary(max_size=61))
def test_a_transport_checksum_over_itself_is_zero(
    source: bytes, destination: bytes, header: bytes, payload: bytes
) -> None:
    value = transport_checksum(source, destination, 17, b"\0\0" + header, payload)
    filled = value.to_bytes(2, "big") + header
    assert transport_checksum(source, destination, 17, filled, payload) == 0
    assert transport_checksum(source, destination, 17, filled + payload) == 0
    # What UDP sends in place of 0 verifies just as well.
    if value == 0:
        assert transport_checksum(source, destination, 17, b"\xff\xff" + header, payload) == 0


@quick
@given(st.binary(min_size=20, max_size=60), st.integers(0))
def test_one_wrong_bit_never_passes(data: bytes, where: int) -> None:
    data = checksum(data).to_bytes(2, "big") + data
    bit = where % (len(data) * 8)
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    assert checksum(data) == 0
    assert checksum(damaged) != 0
