from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.address import packed
from zttrio.header.checksum import checksum
from zttrio.header.igmp import ROUTER_ALERT
from zttrio.header.ipv4 import PROTOCOL_ICMP, PROTOCOL_IGMP, PROTOCOL_TCP, Ipv4Header

from .header_samples import IPV4, KERNEL_FRAMES, U8, U16, disguises, quick

OURS, THEIRS = packed("10.9.0.1"), packed("10.9.0.2")


@st.composite
def headers(draw: st.DrawFn) -> tuple[Ipv4Header, bytes]:
    """A header and a payload of the length it speaks of."""
    payload = draw(st.binary(max_size=64))
    options = draw(st.binary(max_size=10).map(lambda seed: (seed * 4)[: len(seed) * 4]))
    header = Ipv4Header(
        draw(IPV4),
        draw(IPV4),
        draw(U8),
        20 + len(options) + len(payload),
        draw(U8),
        draw(U16),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 0x1FFF)) * 8,
        draw(U8),
        options,
    )
    return header, payload


@quick
@given(headers())
def test_a_header_survives_the_wire(sample: tuple[Ipv4Header, bytes]) -> None:
    header, payload = sample
    octets = header.emit()
    assert len(octets) == header.header_length
    assert checksum(octets) == 0
    for data, offset in disguises(octets + payload):
        parsed = Ipv4Header.parse(data, offset)
        assert attrs.evolve(parsed, checksum=0) == header
        assert Ipv4Header.parse_quoted(data, offset) == parsed
        assert parsed.emit() == octets


@quick
@given(headers(), st.integers(0))
def test_one_wrong_bit_in_the_header_is_noticed(
    sample: tuple[Ipv4Header, bytes], where: int
) -> None:
    header, payload = sample
    octets = bytearray(header.emit() + payload)
    bit = where % (header.header_length * 8)
    octets[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HeaderError):
        Ipv4Header.parse(octets)


def test_the_kernels_echo_request_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["echo request"][14:]
    header = Ipv4Header.parse(packet)
    assert header == Ipv4Header(
        OURS,
        THEIRS,
        PROTOCOL_ICMP,
        total_length=84,
        ttl=64,
        identification=0x1028,
        dont_fragment=True,
        checksum=0x166D,
    )
    assert header.emit() == packet[:20]
    assert not header.is_fragment


def test_the_kernels_last_fragment_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["last fragment"][14:]
    header = Ipv4Header.parse(packet)
    assert (header.fragment_offset, header.more_fragments) == (0x172 * 8, False)
    assert header.is_fragment
    assert header.emit() == packet[:20]


def test_the_kernels_router_alert_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["igmp report"][14:]
    header = Ipv4Header.parse(packet)
    assert (header.protocol, header.ttl, header.traffic_class) == (PROTOCOL_IGMP, 1, 0xC0)
    assert (header.options, header.header_length) == (ROUTER_ALERT, 24)
    assert header.emit() == packet[:24]


def test_a_well_known_example_has_the_well_known_checksum() -> None:
    text = "450000730000400040110000c0a80001c0a800c7"
    blank = Ipv4Header.parse_quoted(bytes.fromhex(text))
    assert blank.emit().hex() == text.replace("40110000", "4011b861")


def test_ethernet_padding_is_not_part_of_the_packet() -> None:
    packet = KERNEL_FRAMES["tcp rst"][14:] + bytes(6)
    assert Ipv4Header.parse(packet).total_length == 40


def test_a_payload_in_another_piece_counts_as_there() -> None:
    packet = KERNEL_FRAMES["tcp data"][14:]
    assert Ipv4Header.parse(packet[:20], available=len(packet)).total_length == len(packet)
    with pytest.raises(HeaderError, match="total length"):
        Ipv4Header.parse(packet[:20], available=len(packet) - 1)
    with pytest.raises(HeaderError, match="total length"):
        Ipv4Header.parse(packet[:20])


@pytest.mark.parametrize("length", range(20))
def test_a_short_header_is_refused(length: int) -> None:
    packet = KERNEL_FRAMES["tcp data"][14:]
    for parse in (Ipv4Header.parse, Ipv4Header.parse_quoted):
        with pytest.raises(HeaderError, match=f"needs 20 octets, got {length}"):
            parse(packet[:length])


@pytest.mark.parametrize(
    ("first", "complaint"),
    [(0x55, "version 5"), (0x65, "version 6"), (0x44, "header length 16"), (0x4F, "length 60")],
)
def test_version_and_header_length_are_checked(first: int, complaint: str) -> None:
    packet = bytearray(KERNEL_FRAMES["tcp rst"][14:])
    packet[0] = first
    for parse in (Ipv4Header.parse, Ipv4Header.parse_quoted):
        with pytest.raises(HeaderError, match=complaint):
            parse(packet)


def test_a_total_length_inside_the_header_is_refused() -> None:
    octets = Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, total_length=19).emit()
    with pytest.raises(HeaderError, match="total length 19"):
        Ipv4Header.parse(octets)


def test_a_quoted_header_is_read_from_what_the_router_left_of_it() -> None:
    packet = bytearray(KERNEL_FRAMES["tcp data"][14:42])
    packet[8] = 1  # the TTL has gone down and nobody mended the checksum
    assert Ipv4Header.parse_quoted(packet).total_length == 65
    with pytest.raises(HeaderError):
        Ipv4Header.parse(packet)


def test_options_are_padded_to_words() -> None:
    header = Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, 24, options=b"\x01\x01\x01")
    assert header.header_length == 24
    assert Ipv4Header.parse(header.emit()).options == b"\x01\x01\x01\x00"


def test_what_cannot_be_sent_is_not_emitted() -> None:
    with pytest.raises(ValueError, match="options of 41 octets: at most 40 fit"):
        Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, 64, options=bytes(41)).emit()
    with pytest.raises(ValueError, match="fragment offset 12: not a multiple of 8"):
        Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, 20, fragment_offset=12).emit()
    with pytest.raises(struct.error):
        Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, 65536).emit()


def test_the_header_checksum_is_never_all_ones() -> None:
    # The other 0: found by search, sums to 0xFFFF before it is complemented.
    base = Ipv4Header(OURS, THEIRS, PROTOCOL_TCP, 40)
    missing = int.from_bytes(base.emit()[10:12], "big")
    header = attrs.evolve(base, identification=missing)
    octets = header.emit()
    assert octets[10:12] == b"\0\0"
    assert Ipv4Header.parse(octets + bytes(20)).identification == missing
