from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.address import packed
from zttrio.header.checksum import transport_checksum
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP
from zttrio.header.tcp import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, TcpHeader, flags_text
from zttrio.header.udp import UdpHeader

from .header_samples import KERNEL_FRAMES, U8, U16, U32, disguises, quick

BLOCKS = st.tuples(U32, U32)
FAMILIES = [
    ("", 34, packed("10.9.0.1"), packed("10.9.0.2")),
    (" over ipv6", 54, packed("fd00:9::1"), packed("fd00:9::2")),
]


@st.composite
def tcp_headers(draw: st.DrawFn) -> TcpHeader:
    is_syn = draw(st.booleans())
    timestamp = draw(st.none() | st.tuples(U32, U32))
    room = 3 if timestamp else 4
    return TcpHeader(
        draw(U16),
        draw(U16),
        draw(U32),
        draw(U32),
        draw(U8),
        draw(U16),
        draw(U16),
        draw(U16),
        draw(st.none() | st.integers(1, 0xFFFF)) if is_syn else None,
        draw(st.none() | U8) if is_syn else None,
        draw(st.booleans()) if is_syn else False,
        () if is_syn else tuple(draw(st.lists(BLOCKS, max_size=room))),
        timestamp,
    )


@quick
@given(tcp_headers())
def test_a_tcp_header_survives_the_wire(header: TcpHeader) -> None:
    octets = header.emit()
    assert len(octets) % 4 == 0
    for data, offset in disguises(octets + b"payload"):
        parsed = TcpHeader.parse(data, offset)
        assert parsed.data_offset == len(octets)
        assert attrs.evolve(parsed, data_offset=20) == header
        assert parsed.emit() == octets


@quick
@given(st.builds(UdpHeader, U16, U16, st.integers(8, 0xFFFF), U16))
def test_a_udp_header_survives_the_wire(header: UdpHeader) -> None:
    for data, offset in disguises(header.emit()):
        assert UdpHeader.parse(data, offset, available=header.length) == header
        assert UdpHeader.parse_quoted(data, offset) == header


def test_the_kernels_syn_is_read_and_written_alike() -> None:
    octets = KERNEL_FRAMES["tcp syn"][34:]
    header = TcpHeader.parse(octets)
    assert header == TcpHeader(
        src_port=35832,
        dst_port=7777,
        seq=2000906467,
        ack=0,
        flags=SYN,
        window=64240,
        checksum=0x5D0F,
        mss=1460,
        window_scale=10,
        sack_permitted=True,
        timestamp=(903945095, 0),
        data_offset=40,
    )
    assert header.emit() == octets


@pytest.mark.parametrize(
    "name",
    ["tcp syn ack", "tcp data", "tcp rst", "tcp syn over ipv6", "tcp data over ipv6"],
)
def test_every_header_of_the_kernel_is_written_as_it_was_read(name: str) -> None:
    frame = KERNEL_FRAMES[name]
    start = 54 if "ipv6" in name else 34
    header = TcpHeader.parse(frame, start)
    assert header.emit() == frame[start : start + header.data_offset]


@pytest.mark.parametrize(("suffix", "start", "source", "destination"), FAMILIES)
def test_the_kernels_checksums_are_right(
    suffix: str, start: int, source: bytes, destination: bytes
) -> None:
    for name, protocol in ("tcp data", PROTOCOL_TCP), ("tcp syn", PROTOCOL_TCP), ("udp", 17):
        segment = KERNEL_FRAMES[name + suffix][start:]
        for data, offset in disguises(segment):
            assert transport_checksum(source, destination, protocol, data[offset:]) == 0


@pytest.mark.parametrize(("suffix", "start", "source", "destination"), FAMILIES)
def test_the_kernels_datagram_is_built_alike(
    suffix: str, start: int, source: bytes, destination: bytes
) -> None:
    expected = KERNEL_FRAMES["udp" + suffix][start:]
    payload = b"nobody there"
    header = attrs.evolve(UdpHeader.parse(expected), checksum=0)
    header.checksum = transport_checksum(source, destination, PROTOCOL_UDP, header.emit(), payload)
    assert header.emit() + payload == expected


def test_the_data_of_the_kernels_segment_starts_where_the_header_ends() -> None:
    frame = KERNEL_FRAMES["tcp data"]
    header = TcpHeader.parse(frame, 34)
    assert frame[34 + header.data_offset :] == b"hello zttrio\n"
    assert (flags_text(header.flags), header.timestamp) == ("PA", (903945096, 885171179))


def test_flags_read_like_packet_dumps() -> None:
    assert flags_text(SYN | ACK) == "SA"
    assert flags_text(FIN | SYN | RST | PSH | ACK | URG | ECE | CWR) == "FSRPAUEC"
    assert flags_text(0) == ""
    assert (FIN, SYN, RST, PSH, ACK, URG, ECE, CWR) == (1, 2, 4, 8, 16, 32, 64, 128)


def with_options(options: bytes) -> bytes:
    """A TCP header with these octets behind it, padded with the end of the option list."""
    options += bytes(-len(options) % 4)
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, (20 + len(options)) << 2, ACK, 5, 6, 0) + options


PLAIN = TcpHeader(1, 2, 3, 4, ACK, 5, checksum=6)
MSS = "020405b4"
TIMESTAMP = "080a0000000700000008"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # RFC 9293 3.2: end and no-operation
        ("01010101", PLAIN),
        ("00" + MSS + "000000", PLAIN),
        ("01" + MSS, attrs.evolve(PLAIN, mss=1460)),
        # alignment nobody recommends
        (TIMESTAMP + "0101", attrs.evolve(PLAIN, timestamp=(7, 8))),
        ("01" + TIMESTAMP + "01", attrs.evolve(PLAIN, timestamp=(7, 8))),
        # an unknown kind (TCP Fast Open, 34) is stepped over
        ("2206aabbccdd" + MSS, attrs.evolve(PLAIN, mss=1460)),
        # a known kind of a wrong length is stepped over
        ("0203ff" + MSS, attrs.evolve(PLAIN, mss=1460)),
        ("030407ff" + MSS, attrs.evolve(PLAIN, mss=1460)),
        ("0506aabbccdd" + MSS, attrs.evolve(PLAIN, mss=1460)),
        ("080401ff" + MSS, attrs.evolve(PLAIN, mss=1460)),
        ("040301" + MSS, attrs.evolve(PLAIN, mss=1460)),
        # of equal kinds the last one counts
        ("02040001" + MSS, attrs.evolve(PLAIN, mss=1460)),
        # an offer of nothing is no offer
        ("02040000", PLAIN),
        # a length that is none ends the list, and what came before it counts
        (MSS + "0300" + TIMESTAMP, attrs.evolve(PLAIN, mss=1460)),
        (MSS + "0301" + TIMESTAMP, attrs.evolve(PLAIN, mss=1460)),
        (MSS + "2200", attrs.evolve(PLAIN, mss=1460)),
        # a length that runs out of the header too
        (MSS + "0328", attrs.evolve(PLAIN, mss=1460)),
        (MSS + "010101" + "03", attrs.evolve(PLAIN, mss=1460)),
        (MSS + "0101" + "0204", attrs.evolve(PLAIN, mss=1460)),
        # RFC 2018
        ("0402", attrs.evolve(PLAIN, sack_permitted=True)),
        (
            "0101050a0000000100000002",
            attrs.evolve(PLAIN, sack_blocks=((1, 2),)),
        ),
        # RFC 7323: what is more than 14 is the business of TCP
        ("01030 3ff".replace(" ", ""), attrs.evolve(PLAIN, window_scale=255)),
    ],
)
def test_options_are_read_as_linux_reads_them(options: str, expected: TcpHeader) -> None:
    octets = with_options(bytes.fromhex(options))
    expected = attrs.evolve(expected, data_offset=len(octets))
    for data, offset in disguises(octets):
        assert TcpHeader.parse(data, offset) == expected


def test_options_behind_the_header_are_payload() -> None:
    octets = with_options(b"") + bytes.fromhex(MSS)
    assert TcpHeader.parse(octets) == PLAIN


def test_four_blocks_are_the_most_there_can_be() -> None:
    edges = tuple((i, i + 1) for i in range(0, 8, 2))
    header = attrs.evolve(PLAIN, sack_blocks=edges)
    assert TcpHeader.parse(header.emit()).sack_blocks == edges
    header.sack_blocks += ((8, 9),)
    with pytest.raises(ValueError, match="5 SACK blocks: at most four fit"):
        header.emit()
    header = attrs.evolve(PLAIN, sack_blocks=edges, timestamp=(1, 2))
    with pytest.raises(ValueError, match="48 octets: at most 40 fit"):
        header.emit()


def test_the_timestamp_takes_the_layout_that_linux_predicts() -> None:
    octets = attrs.evolve(PLAIN, timestamp=(7, 8)).emit()
    assert octets[20:].hex() == "0101" + TIMESTAMP
    octets = attrs.evolve(PLAIN, timestamp=(7, 8), sack_permitted=True).emit()
    assert octets[20:].hex() == "0402" + TIMESTAMP


@pytest.mark.parametrize("length", range(20))
def test_a_short_tcp_header_is_refused(length: int) -> None:
    with pytest.raises(HeaderError, match=f"needs 20 octets, got {length}"):
        TcpHeader.parse(KERNEL_FRAMES["tcp syn"][34 : 34 + length])


@pytest.mark.parametrize("words", [0, 4, 11, 15])
def test_a_data_offset_that_cannot_be_is_refused(words: int) -> None:
    octets = bytearray(KERNEL_FRAMES["tcp syn"][34:])  # 40 octets, all of them header
    octets[12] = words << 4
    with pytest.raises(HeaderError, match=f"data offset {4 * words}: not between 20 and 40"):
        TcpHeader.parse(octets)


def test_reserved_bits_are_ignored() -> None:
    octets = bytearray(KERNEL_FRAMES["tcp syn"][34:])
    header = TcpHeader.parse(octets)
    octets[12] |= 0x0F
    assert TcpHeader.parse(octets) == header


@pytest.mark.parametrize("length", range(8))
def test_eight_octets_are_what_an_icmp_error_must_quote(length: int) -> None:
    octets = KERNEL_FRAMES["tcp syn"][34:]
    quoted = TcpHeader.parse_quoted(octets[:8])
    assert quoted == TcpHeader(35832, 7777, 2000906467, 0, 0, 0)
    with pytest.raises(HeaderError):
        TcpHeader.parse_quoted(octets[:length])
    with pytest.raises(HeaderError):
        UdpHeader.parse_quoted(octets[:length])


@pytest.mark.parametrize("length", [0, 7, 21, 0xFFFF])
def test_a_udp_length_that_contradicts_the_datagram_is_refused(length: int) -> None:
    octets = UdpHeader(1, 2, length).emit() + bytes(12)
    with pytest.raises(HeaderError, match=f"UDP length {length}: not between 8 and 20"):
        UdpHeader.parse(octets)
    with pytest.raises(HeaderError, match="needs 8 octets"):
        UdpHeader.parse(octets[:7])


def test_a_datagram_may_be_shorter_than_its_packet() -> None:
    assert UdpHeader.parse(UdpHeader(1, 2, 9).emit() + bytes(4)).length == 9
