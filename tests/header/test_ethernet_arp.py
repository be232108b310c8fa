from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.address import BROADCAST_MAC, UNSPECIFIED_MAC, packed, parse_mac
from zttrio.header.arp import REPLY, REQUEST, ArpPacket
from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader

from .header_samples import IPV4, KERNEL_FRAMES, MACS, U16, disguises, quick

OURS = parse_mac("02:00:00:00:00:0a")
THEIRS = parse_mac("02:00:00:00:00:0b")


@quick
@given(st.builds(EthernetHeader, MACS, MACS, U16))
def test_an_ethernet_header_survives_the_wire(header: EthernetHeader) -> None:
    for octets, offset in disguises(header.emit() + b"payload"):
        assert EthernetHeader.parse(octets, offset) == header


@quick
@given(st.builds(ArpPacket, U16, MACS, IPV4, MACS, IPV4))
def test_an_arp_packet_survives_the_wire(packet: ArpPacket) -> None:
    for octets, offset in disguises(packet.emit() + bytes(18)):
        assert ArpPacket.parse(octets, offset) == packet


def test_the_kernel_asks_for_its_neighbor() -> None:
    frame = KERNEL_FRAMES["arp request"]
    assert EthernetHeader.parse(frame) == EthernetHeader(BROADCAST_MAC, OURS, ETHERTYPE_ARP)
    question = ArpPacket(REQUEST, OURS, packed("10.9.0.1"), UNSPECIFIED_MAC, packed("10.9.0.2"))
    assert ArpPacket.parse(frame, 14) == question
    assert question.emit() == frame[14:]


def test_the_kernel_answers_its_neighbor() -> None:
    answer = ArpPacket(REPLY, THEIRS, packed("10.9.0.2"), OURS, packed("10.9.0.1"))
    header = EthernetHeader(OURS, THEIRS, ETHERTYPE_ARP)
    assert header.emit() + answer.emit() == KERNEL_FRAMES["arp reply"]


@pytest.mark.parametrize("length", range(14))
def test_a_short_ethernet_header_is_refused(length: int) -> None:
    with pytest.raises(HeaderError, match=f"needs 14 octets, got {length}"):
        EthernetHeader.parse(KERNEL_FRAMES["udp"][:length])


@pytest.mark.parametrize("length", range(28))
def test_a_short_arp_packet_is_refused(length: int) -> None:
    with pytest.raises(HeaderError, match=f"needs 28 octets, got {length}"):
        ArpPacket.parse(KERNEL_FRAMES["arp reply"][: 14 + length], 14)


@pytest.mark.parametrize("octet", range(6))
def test_arp_about_anything_but_ipv4_over_ethernet_is_refused(octet: int) -> None:
    damaged = bytearray(KERNEL_FRAMES["arp reply"][14:])
    damaged[octet] ^= 0x10
    with pytest.raises(HeaderError, match="not IPv4 over Ethernet"):
        ArpPacket.parse(damaged)


def test_an_offset_behind_the_end_is_refused() -> None:
    with pytest.raises(HeaderError):
        EthernetHeader.parse(b"\0" * 14, 20)


def test_the_kernels_packets_are_ipv4() -> None:
    header = EthernetHeader.parse(KERNEL_FRAMES["tcp syn"])
    assert header == EthernetHeader(THEIRS, OURS, ETHERTYPE_IPV4)
