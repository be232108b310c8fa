"""Cutting our own packets where the path is too narrow for them (RFC 791 3.2, RFC 8200 4.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header import ipv4, ipv6
from zttrio.header.checksum import checksum
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["finish_partial", "fragment_ipv4", "fragment_ipv6"]

_CHECKSUM_AT = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6, PROTOCOL_ICMPV6: 2}


def finish_partial(protocol: int, packet: bytes) -> bytes:
    """*packet* (from its transport header on) with its CHECKSUM_PARTIAL field completed.

    Nobody can do that once it is in pieces.
    """
    value = checksum(packet)
    if protocol == PROTOCOL_UDP:
        value = value or 0xFFFF
    at = _CHECKSUM_AT[protocol]
    return packet[:at] + value.to_bytes(2) + packet[at + 2 :]


def fragment_ipv4(
    header: ipv4.Ipv4Header, packet: bytes, mtu: int
) -> Iterator[tuple[bytes, memoryview]]:
    """IP header and content of each fragment, in order.

    Args:
        header: of the whole, with its identification; changed on the way.
        packet: everything behind it.
        mtu: octets of the largest fragment, header included.
    """
    size = mtu - ipv4.LENGTH & ~7
    view = memoryview(packet)
    header.dont_fragment = False
    for offset in range(0, len(packet), size):
        piece = view[offset : offset + size]
        header.fragment_offset = offset
        header.more_fragments = offset + size < len(packet)
        header.total_length = ipv4.LENGTH + len(piece)
        yield header.emit(), piece


def fragment_ipv6(
    header: ipv6.Ipv6Header, identification: int, packet: bytes, mtu: int
) -> Iterator[tuple[bytes, memoryview]]:
    """As `fragment_ipv4`; the IP header that comes out ends with a fragment header."""
    size = mtu - ipv6.LENGTH - ipv6.FRAGMENT_LENGTH & ~7
    view = memoryview(packet)
    protocol = header.next_header
    header.next_header = ipv6.FRAGMENT
    for offset in range(0, len(packet), size):
        piece = view[offset : offset + size]
        more = offset + size < len(packet)
        header.payload_length = ipv6.FRAGMENT_LENGTH + len(piece)
        fragment = ipv6.FragmentHeader(protocol, offset, more, identification)
        yield header.emit() + fragment.emit(), piece
