from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header import icmpv4, icmpv6
from zttrio.header.address import packed
from zttrio.header.checksum import checksum, transport_checksum
from zttrio.header.icmpv4 import IcmpV4
from zttrio.header.icmpv6 import IcmpV6
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_UDP, Ipv4Header
from zttrio.header.ipv6 import Ipv6Header
from zttrio.header.udp import UdpHeader

from .header_samples import IPV6, KERNEL_FRAMES, U8, U32, disguises, quick

OURS, THEIRS = packed("fd00:9::1"), packed("fd00:9::2")
BODIES = st.binary(max_size=61)


@quick
@given(st.builds(IcmpV4, U8, U8, rest=U32, body=BODIES))
def test_an_icmpv4_message_survives_the_wire(message: IcmpV4) -> None:
    octets = message.emit()
    assert checksum(octets) == 0
    for data, offset in disguises(octets):
        assert attrs.evolve(IcmpV4.parse(data, offset), checksum=0) == message


@quick
@given(st.builds(IcmpV6, U8, U8, rest=U32, body=BODIES), IPV6, IPV6)
def test_an_icmpv6_message_survives_the_wire(
    message: IcmpV6, source: bytes, destination: bytes
) -> None:
    octets = message.emit(source, destination)
    assert transport_checksum(source, destination, PROTOCOL_ICMPV6, octets) == 0
    for data, offset in disguises(octets):
        assert attrs.evolve(IcmpV6.parse(data, offset), checksum=0) == message


def test_the_kernels_ping_is_read_and_written_alike() -> None:
    octets = KERNEL_FRAMES["echo request"][34:]
    message = IcmpV4.parse(octets)
    assert (message.type, message.code, message.rest) == (icmpv4.ECHO_REQUEST, 0, 10108 << 16 | 1)
    assert message.emit() == octets


def test_the_kernels_ping_over_ipv6_is_read_and_written_alike() -> None:
    octets = KERNEL_FRAMES["echo request over ipv6"][54:]
    message = IcmpV6.parse(octets)
    assert (message.type, message.code, message.rest) == (icmpv6.ECHO_REQUEST, 0, 10110 << 16 | 1)
    assert not message.is_error
    assert message.emit(OURS, THEIRS) == octets


def test_the_kernels_refusal_quotes_the_datagram() -> None:
    octets = KERNEL_FRAMES["port unreachable"][34:]
    error = IcmpV4.parse(octets)
    assert (error.type, error.code) == (
        icmpv4.DESTINATION_UNREACHABLE,
        icmpv4.UNREACHABLE_PORT,
    )
    assert error.type in icmpv4.ERROR_TYPES
    assert error.emit() == octets
    quoted = Ipv4Header.parse_quoted(error.body)
    assert (quoted.protocol, quoted.destination) == (PROTOCOL_UDP, packed("10.9.0.2"))
    assert UdpHeader.parse_quoted(error.body, quoted.header_length).dst_port == 9


def test_the_kernels_refusal_over_ipv6_quotes_the_datagram() -> None:
    octets = KERNEL_FRAMES["port unreachable over ipv6"][54:]
    error = IcmpV6.parse(octets)
    assert (error.type, error.code) == (
        icmpv6.DESTINATION_UNREACHABLE,
        icmpv6.UNREACHABLE_PORT,
    )
    assert error.is_error
    assert error.emit(THEIRS, OURS) == octets
    quoted = Ipv6Header.parse_quoted(error.body)
    assert (quoted.next_header, quoted.destination) == (PROTOCOL_UDP, THEIRS)
    assert UdpHeader.parse_quoted(error.body, 40).dst_port == 9


def test_only_errors_count_as_errors() -> None:
    assert icmpv4.ECHO_REQUEST not in icmpv4.ERROR_TYPES
    assert IcmpV6(icmpv6.PARAMETER_PROBLEM, 0).is_error
    assert IcmpV6(127, 0).is_error
    assert not IcmpV6(icmpv6.ECHO_REQUEST, 0).is_error


@pytest.mark.parametrize("length", range(8))
def test_a_short_message_is_refused(length: int) -> None:
    octets = KERNEL_FRAMES["echo request"][34 : 34 + length]
    with pytest.raises(HeaderError, match=f"ICMP header needs 8 octets, got {length}"):
        IcmpV4.parse(octets)
    with pytest.raises(HeaderError, match=f"ICMPv6 header needs 8 octets, got {length}"):
        IcmpV6.parse(octets)
