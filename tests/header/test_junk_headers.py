"""Any octets are a header or a HeaderError, for every parser, in every buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header import arp, ethernet, icmpv4, icmpv6, igmp, ipv4, ipv6, mld, ndp, tcp, udp
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.membership import GroupRecord
from zttrio.header.offload import finish_checksum, split

from .header_samples import KERNEL_FRAMES, disguises, quick

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.header.frame import Buffer

    Parser = Callable[[Buffer, int], object]


def walk(data: Buffer, offset: int) -> object:
    first = data[offset] if len(data) > offset else 0
    return list(ipv6.iter_extension_headers(first, data, offset))


def read_options(data: Buffer, offset: int) -> object:
    return list(ipv6.iter_options(data, offset, len(data) - offset))


def read_ipv4_record(data: Buffer, offset: int) -> object:
    return GroupRecord.parse(data, offset, width=4)


def read_ipv6_record(data: Buffer, offset: int) -> object:
    return GroupRecord.parse(data, offset, width=16)


PARSERS: dict[str, Parser] = {
    "ethernet": ethernet.EthernetHeader.parse,
    "arp": arp.ArpPacket.parse,
    "ipv4": ipv4.Ipv4Header.parse,
    "quoted ipv4": ipv4.Ipv4Header.parse_quoted,
    "ipv6": ipv6.Ipv6Header.parse,
    "quoted ipv6": ipv6.Ipv6Header.parse_quoted,
    "extension headers": walk,
    "fragment header": ipv6.FragmentHeader.parse,
    "routing header": ipv6.RoutingHeader.parse,
    "ipv6 options": read_options,
    "icmpv4": icmpv4.IcmpV4.parse,
    "icmpv6": icmpv6.IcmpV6.parse,
    "udp": udp.UdpHeader.parse,
    "quoted udp": udp.UdpHeader.parse_quoted,
    "tcp": tcp.TcpHeader.parse,
    "quoted tcp": tcp.TcpHeader.parse_quoted,
    "nd options": ndp.NdOptions.parse,
    "router solicitation": ndp.RouterSolicitation.parse,
    "router advertisement": ndp.RouterAdvertisement.parse,
    "neighbor solicitation": ndp.NeighborSolicitation.parse,
    "neighbor advertisement": ndp.NeighborAdvertisement.parse,
    "redirect": ndp.Redirect.parse,
    "mld query": mld.MldQuery.parse,
    "mld report": mld.MldReport.parse,
    "mld message": mld.MldV1Message.parse,
    "igmp query": igmp.IgmpQuery.parse,
    "igmp report": igmp.IgmpReport.parse,
    "igmp message": igmp.IgmpMessage.parse,
    "ipv4 group record": read_ipv4_record,
    "ipv6 group record": read_ipv6_record,
}
# The first octet chooses the message, so junk alone would seldom get past it.
TYPES = {
    "router solicitation": 133,
    "router advertisement": 134,
    "neighbor solicitation": 135,
    "neighbor advertisement": 136,
    "redirect": 137,
    "mld query": 130,
    "mld report": 143,
    "mld message": 131,
    "igmp query": 0x11,
    "igmp report": 0x22,
    "igmp message": 0x16,
}
STARTS = {"ethernet": 0, "arp": 14, "ipv4": 14, "quoted ipv4": 14, "ipv6": 14, "quoted ipv6": 14}


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A frame of the kernel with octets changed, cut off or repeated."""
    frame = bytearray(draw(st.sampled_from(sorted(KERNEL_FRAMES.values()))))
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)
    ):
        frame[at % len(frame)] = value
    start = draw(st.integers(0, len(frame)))
    end = draw(st.integers(0, len(frame)))
    return bytes(frame[:end] if draw(st.booleans()) else frame[:end] + frame[start:])


JUNK = st.binary(max_size=120) | mutations()
thorough = settings(deadline=None, max_examples=300)


def outcome(parse: Parser, data: Buffer, offset: int) -> object:
    try:
        return parse(data, offset)
    except HeaderError:
        return None


@thorough
@given(junk=JUNK)
@example(junk=b"")
@example(junk=b"\xff" * 5000)
@example(junk=bytes(5000))
def test_junk_is_a_header_or_a_header_error(junk: bytes) -> None:
    for name, parse in PARSERS.items():
        octets = bytes((TYPES[name],)) + junk[1:] if name in TYPES else junk
        found = [outcome(parse, data, offset) for data, offset in disguises(octets)]
        if name not in ("extension headers", "ipv6 options"):  # those remember the offset
            assert all(other == found[0] for other in found), name


@thorough
@given(junk=mutations())
def test_mutated_frames_of_the_kernel_are_too(junk: bytes) -> None:
    for name, parse in PARSERS.items():
        start = STARTS.get(name)
        for offset in (34, 54, 62) if start is None else (start,):
            outcome(parse, junk, offset)
            outcome(parse, memoryview(junk), offset)


@quick
@given(mutations(), st.integers(0, 200), st.sampled_from((0, 1, 7, 1400)))
def test_a_frame_that_cannot_be_offloaded_is_a_header_error(
    junk: bytes, cut: int, gso_size: int
) -> None:
    frame = Frame(junk[:cut], junk[cut:], gso_size, CHECKSUM_PARTIAL)
    for work in (split, finish_checksum):
        try:
            work(frame)
        except HeaderError:
            continue
