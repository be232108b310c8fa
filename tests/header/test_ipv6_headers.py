from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header import ipv6
from zttrio.header.address import packed
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_TCP
from zttrio.header.ipv6 import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    HOP_BY_HOP,
    MAX_EXTENSION_HEADERS,
    MAX_OPTIONS,
    NO_NEXT_HEADER,
    ROUTING,
    ExtensionHeader,
    FragmentHeader,
    Ipv6Header,
    Option,
    RoutingHeader,
    emit_options,
    iter_extension_headers,
    iter_options,
)

from .header_samples import IPV6, KERNEL_FRAMES, U8, U32, disguises, quick

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS, THEIRS = packed("fd00:9::1"), packed("fd00:9::2")


@quick
@given(st.builds(Ipv6Header, IPV6, IPV6, U8, st.integers(0, 64), U8, U8, st.integers(0, 0xF_FFFF)))
def test_a_header_survives_the_wire(header: Ipv6Header) -> None:
    for data, offset in disguises(header.emit() + bytes(header.payload_length)):
        assert Ipv6Header.parse(data, offset) == header
        assert Ipv6Header.parse_quoted(data, offset) == header


@quick
@given(
    st.builds(FragmentHeader, U8, st.integers(0, 0x1FFF).map(lambda n: n * 8), st.booleans(), U32)
)
def test_a_fragment_header_survives_the_wire(header: FragmentHeader) -> None:
    for data, offset in disguises(header.emit()):
        assert FragmentHeader.parse(data, offset) == header


@quick
@given(
    st.builds(RoutingHeader, U8, U8, U8, st.integers(0, 9).map(lambda n: bytes(range(4 + 8 * n))))
)
def test_a_routing_header_survives_the_wire(header: RoutingHeader) -> None:
    for data, offset in disguises(header.emit()):
        assert RoutingHeader.parse(data, offset) == header


@quick
@given(
    U8,
    st.lists(st.builds(Option, st.integers(2, 255), st.binary(max_size=20)), max_size=MAX_OPTIONS),
)
def test_options_survive_the_wire(next_header: int, options: list[Option]) -> None:
    octets = emit_options(next_header, options)
    assert len(octets) == 8 + 8 * octets[1]
    for data, offset in disguises(octets):
        found = list(iter_options(data, offset, len(octets)))
        assert [attrs.evolve(option, offset=0) for option in found] == options
        assert [data[option.offset] for option in found] == [option.kind for option in options]


def test_the_kernels_header_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["echo request over ipv6"][14:]
    header = Ipv6Header.parse(packet)
    assert header == Ipv6Header(OURS, THEIRS, PROTOCOL_ICMPV6, 64, 64, 0, 0x9356D)
    assert header.emit() == packet[:40]


def test_the_kernels_last_fragment_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["last fragment over ipv6"][14:]
    assert list(iter_extension_headers(FRAGMENT, packet)) == [
        ExtensionHeader(FRAGMENT, 40, 8, PROTOCOL_ICMPV6)
    ]
    header = FragmentHeader.parse(packet, 40)
    assert header == FragmentHeader(PROTOCOL_ICMPV6, 2896, False, 0x197BCA9B)
    assert header.emit() == packet[40:48]
    assert not header.is_atomic


def test_the_kernels_router_alert_is_read_and_written_alike() -> None:
    packet = KERNEL_FRAMES["mld report"][14:]
    (header,) = iter_extension_headers(HOP_BY_HOP, packet)
    assert header == ExtensionHeader(HOP_BY_HOP, 40, 8, PROTOCOL_ICMPV6)
    (option,) = iter_options(packet, 40, header.length)
    assert option == Option(ipv6.OPTION_ROUTER_ALERT, bytes(2), 42)
    assert option.action == 0
    assert emit_options(PROTOCOL_ICMPV6, [option]) == packet[40:48]


def chain(*links: tuple[int, int], last: int = PROTOCOL_TCP) -> bytes:
    """Extension headers of these kinds and lengths in units of 8 octets, the last before *last*."""
    octets = b""
    following = [kind for kind, _ in links[1:]] + [last]
    for (kind, units), next_header in zip(links, following, strict=True):
        extra = 0 if kind == FRAGMENT else units - 1
        octets += bytes((next_header, extra)) + bytes(8 * units - 2)
    return octets


def test_a_chain_is_walked_in_order_to_the_transport() -> None:
    links = [(HOP_BY_HOP, 2), (DESTINATION_OPTIONS, 1), (ROUTING, 3), (FRAGMENT, 1)]
    octets = chain(*links)
    for data, offset in disguises(octets + b"transport"):
        found = list(iter_extension_headers(HOP_BY_HOP, data, offset))
        assert [(header.kind, header.length // 8) for header in found] == links
        assert found[-1].next_header == PROTOCOL_TCP
        assert found[-1].offset + found[-1].length == offset + len(octets)


@pytest.mark.parametrize("next_header", [PROTOCOL_TCP, NO_NEXT_HEADER, 50, 51, 135, 253])
def test_what_is_no_extension_header_ends_the_chain(next_header: int) -> None:
    assert list(iter_extension_headers(next_header, b"", 0)) == []
    (found,) = iter_extension_headers(HOP_BY_HOP, chain((HOP_BY_HOP, 1), last=next_header), 0)
    assert found.next_header == next_header


def test_octets_of_a_later_fragment_are_not_taken_for_headers() -> None:
    later = FragmentHeader(DESTINATION_OPTIONS, 8, False, 1).emit()
    assert len(list(iter_extension_headers(FRAGMENT, later + b"\xff" * 8, 0))) == 1
    first = FragmentHeader(DESTINATION_OPTIONS, 0, True, 1).emit()
    with pytest.raises(HeaderError):
        list(iter_extension_headers(FRAGMENT, first + b"\xff" * 8, 0))


def test_a_packet_that_ends_early_ends_the_walk() -> None:
    octets = chain((HOP_BY_HOP, 2))
    for end in range(16):
        with pytest.raises(HeaderError):
            list(iter_extension_headers(HOP_BY_HOP, octets, 0, end))
        with pytest.raises(HeaderError):
            list(iter_extension_headers(HOP_BY_HOP, octets[:end], 0))
    assert len(list(iter_extension_headers(HOP_BY_HOP, octets, 0, 16))) == 1


def test_headers_before_a_broken_one_are_found_first() -> None:
    walk = iter_extension_headers(HOP_BY_HOP, chain((HOP_BY_HOP, 1), (ROUTING, 2))[:-1], 0)
    assert next(walk).kind == HOP_BY_HOP
    with pytest.raises(HeaderError, match="extension header 43: 16 octets do not fit"):
        next(walk)


def test_a_long_chain_is_not_followed_to_its_end() -> None:
    longest: Sequence[tuple[int, int]] = [(DESTINATION_OPTIONS, 1)] * MAX_EXTENSION_HEADERS
    walk = iter_extension_headers(DESTINATION_OPTIONS, chain(*longest), 0)
    assert len(list(walk)) == MAX_EXTENSION_HEADERS
    too_long = chain(*longest, (DESTINATION_OPTIONS, 1))
    with pytest.raises(HeaderError, match=f"more than {MAX_EXTENSION_HEADERS}"):
        list(iter_extension_headers(DESTINATION_OPTIONS, too_long, 0))


def test_padding_is_no_option() -> None:
    octets = bytes.fromhex("3a02 00 0104ffffffff 0502beef 00 0100 1e01aa 00 00".replace(" ", ""))
    octets = octets.ljust(24, b"\0")
    assert list(iter_options(octets, 0, 24)) == [
        Option(5, b"\xbe\xef", 9),
        Option(0x1E, b"\xaa", 16),
    ]


@pytest.mark.parametrize("text", ["3a00000000000005", "3a00050500000000", "3a000100010001ff"])
def test_an_option_that_runs_out_of_its_header_is_refused(text: str) -> None:
    octets = bytes.fromhex(text) + bytes(16)
    with pytest.raises(HeaderError, match="runs out of its header"):
        list(iter_options(octets, 0, 8))


def test_a_long_list_of_options_is_not_followed_to_its_end() -> None:
    longest = [Option(0x1E, b"")] * MAX_OPTIONS
    octets = emit_options(59, longest)
    assert len(list(iter_options(octets, 0, len(octets)))) == MAX_OPTIONS
    octets = emit_options(59, [*longest, Option(0x1E, b"")])
    with pytest.raises(HeaderError, match=f"more than {MAX_OPTIONS}"):
        list(iter_options(octets, 0, len(octets)))


@pytest.mark.parametrize(("kind", "action"), [(0x1E, 0), (0x5E, 1), (0x9E, 2), (0xC2, 3)])
def test_an_option_says_what_becomes_of_those_who_do_not_know_it(kind: int, action: int) -> None:
    assert Option(kind, b"").action == action


def test_a_whole_packet_with_a_fragment_header_is_atomic() -> None:
    assert FragmentHeader(6, 0, False, 7).is_atomic
    assert not FragmentHeader(6, 0, True, 7).is_atomic
    assert not FragmentHeader(6, 8, False, 7).is_atomic


def test_reserved_bits_of_a_fragment_header_are_ignored() -> None:
    octets = bytes.fromhex("06ff000f00000001")
    assert FragmentHeader.parse(octets) == FragmentHeader(6, 8, True, 1)


def test_a_payload_in_another_piece_counts_as_there() -> None:
    packet = KERNEL_FRAMES["tcp data over ipv6"][14:]
    assert Ipv6Header.parse(packet[:40], available=len(packet)).payload_length == 45
    with pytest.raises(HeaderError, match="payload length 45: only 44 octets"):
        Ipv6Header.parse(packet[:40], available=len(packet) - 1)
    with pytest.raises(HeaderError, match="payload length 45: only 0 octets"):
        Ipv6Header.parse(packet[:40])
    assert Ipv6Header.parse_quoted(packet[:40]).payload_length == 45


@pytest.mark.parametrize("length", range(40))
def test_a_short_header_is_refused(length: int) -> None:
    packet = KERNEL_FRAMES["udp over ipv6"][14 : 14 + length]
    with pytest.raises(HeaderError, match=f"needs 40 octets, got {length}"):
        Ipv6Header.parse(packet)


@pytest.mark.parametrize("version", [0, 4, 5, 7, 15])
def test_another_version_is_refused(version: int) -> None:
    packet = bytearray(KERNEL_FRAMES["udp over ipv6"][14:])
    packet[0] = version << 4
    with pytest.raises(HeaderError, match=f"IPv6 version {version}: must be 6"):
        Ipv6Header.parse(packet)


def test_short_fragment_and_routing_headers_are_refused() -> None:
    for length in range(8):
        with pytest.raises(HeaderError):
            FragmentHeader.parse(bytes(length))
        with pytest.raises(HeaderError):
            RoutingHeader.parse(bytes(length))
    with pytest.raises(HeaderError, match="cut short after 15 octets"):
        RoutingHeader.parse(b"\x06\x01" + bytes(13))


def test_what_cannot_be_sent_is_not_emitted() -> None:
    with pytest.raises(ValueError, match="offset 4: not a multiple of 8"):
        FragmentHeader(6, 4, False, 1).emit()
    with pytest.raises(ValueError, match="routing header of 9 octets"):
        RoutingHeader(6, 4, 0, bytes(5)).emit()
    with pytest.raises(ValueError, match="byte"):
        emit_options(6, [Option(0x1E, bytes(256))])
    with pytest.raises(struct.error):
        Ipv6Header(OURS, THEIRS, 6, 0x10000).emit()
