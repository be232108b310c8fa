"""The IPv4 header (RFC 791), and the numbers of the protocols above it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .checksum import finish, sum_of

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "LENGTH",
    "MAX_LENGTH",
    "MAX_PACKET",
    "PROTOCOL_ICMP",
    "PROTOCOL_ICMPV6",
    "PROTOCOL_IGMP",
    "PROTOCOL_TCP",
    "PROTOCOL_UDP",
    "Ipv4Header",
]

PROTOCOL_ICMP = 1
PROTOCOL_IGMP = 2
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58

_LAYOUT = struct.Struct("!BBHHHBBH4s4s")
LENGTH = _LAYOUT.size
MAX_LENGTH = 60
"""The most the four bits of IHL can say."""
MAX_PACKET = 0xFFFF

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_OFFSET_MASK = 0x1FFF
_USUAL = 0x45  # version 4, no options


def _header_length(first: int, there: int) -> int:
    length = (first & 0xF) * 4
    if first >> 4 != 4:
        raise HeaderError(f"IPv4 version {first >> 4}: must be 4")
    if not LENGTH <= length <= there:
        raise HeaderError(f"IPv4 header length {length}: not between {LENGTH} and {there}")
    return length


@attrs.define
class Ipv4Header:
    """The 20 to 60 octets in front of an IPv4 packet.

    The flag bit that RFC 791 reserves is ignored when parsed, as Linux does, and sent as 0.

    Attributes:
        source: packed, 4 octets.
        destination: packed, 4 octets.
        protocol: PROTOCOL_TCP and its kin.
        total_length: octets of header and payload.
        ttl: routers that the packet may still pass.
        identification: what fragments of one packet have in common.
        dont_fragment: routers must drop it rather than cut it.
        more_fragments: this is not the last fragment.
        fragment_offset: octets, a multiple of 8.
        traffic_class: DSCP and ECN, the octet that RFC 791 calls type of service.
        options: as on the wire, at most 40 octets; `emit` pads them to a multiple of 4.
        checksum: as it was received; `emit` computes its own.
    """

    source: bytes
    destination: bytes
    protocol: int
    total_length: int
    ttl: int = 64
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    traffic_class: int = 0
    options: bytes = b""
    checksum: int = 0

    @property
    def header_length(self) -> int:
        """Octets in front of the payload, options and their padding included."""
        return LENGTH + (len(self.options) + 3 & ~3)

    @property
    def is_fragment(self) -> bool:
        """True for every part of a packet that was cut."""
        return self.more_fragments or self.fragment_offset != 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0, available: int | None = None) -> Ipv4Header:
        """Read and verify the header at *offset* of *data*.

        Args:
            data: must hold the whole header, options included.
            offset: where the header starts.
            available: octets of the packet that are really there, from *offset* on, if *data* is
                only its first piece; None if it is all of it.

        Raises:
            HeaderError: version, lengths or checksum are wrong.
        """
        there = len(data) - offset
        if there < LENGTH:
            raise HeaderError(f"IPv4 header needs {LENGTH} octets, got {there}")
        (
            first,
            traffic_class,
            total_length,
            identification,
            flags,
            ttl,
            protocol,
            check,
            src,
            dst,
        ) = _LAYOUT.unpack_from(data, offset)
        length = LENGTH if first == _USUAL else _header_length(first, there)
        if not length <= total_length <= (there if available is None else available):
            raise HeaderError(
                f"IPv4 total length {total_length}: does not fit {available or there}"
            )
        # Zero modulo 65535, and not all zero since the version is in it: a sum of 0xFFFF.
        if int.from_bytes(data[offset : offset + length], "big") % 0xFFFF:
            raise HeaderError(f"IPv4 header checksum {check:#06x}: does not match")
        return cls(
            src,
            dst,
            protocol,
            total_length,
            ttl,
            identification,
            flags & _DONT_FRAGMENT != 0,
            flags & _MORE_FRAGMENTS != 0,
            (flags & _OFFSET_MASK) << 3,
            traffic_class,
            bytes(data[offset + LENGTH : offset + length]) if length != LENGTH else b"",
            check,
        )

    @classmethod
    def parse_quoted(cls, data: Buffer, offset: int = 0) -> Ipv4Header:
        """Read a header that an ICMP error quotes: neither total length nor checksum is compared.

        The quoted packet is cut short, and what stands in its header has passed routers and
        translators that need not have kept the checksum right; what proves that it was ours is the
        transport header behind it.

        Raises:
            HeaderError: version or header length are wrong.
        """
        there = len(data) - offset
        if there < LENGTH:
            raise HeaderError(f"IPv4 header needs {LENGTH} octets, got {there}")
        (
            first,
            traffic_class,
            total_length,
            identification,
            flags,
            ttl,
            protocol,
            check,
            src,
            dst,
        ) = _LAYOUT.unpack_from(data, offset)
        length = _header_length(first, there)
        return cls(
            src,
            dst,
            protocol,
            total_length,
            ttl,
            identification,
            flags & _DONT_FRAGMENT != 0,
            flags & _MORE_FRAGMENTS != 0,
            (flags & _OFFSET_MASK) << 3,
            traffic_class,
            bytes(data[offset + LENGTH : offset + length]),
            check,
        )

    def emit(self) -> bytes:
        """The same header as octets, with its checksum computed.

        Raises:
            ValueError: options of more than 40 octets, or a fragment offset between multiples of 8.
            struct.error: another value does not fit its field.
        """
        length = self.header_length
        if length > MAX_LENGTH:
            raise ValueError(f"IPv4 options of {len(self.options)} octets: at most 40 fit")
        if self.fragment_offset & 7:
            raise ValueError(f"IPv4 fragment offset {self.fragment_offset}: not a multiple of 8")
        flags = self.fragment_offset >> 3
        if self.dont_fragment:
            flags |= _DONT_FRAGMENT
        if self.more_fragments:
            flags |= _MORE_FRAGMENTS
        first = 0x40 | length >> 2
        # The sum of the fields as numbers, so that the header is packed only once.
        check = (first << 8) + self.traffic_class + self.total_length + self.identification + flags
        check += (self.ttl << 8) + self.protocol
        check += int.from_bytes(self.source + self.destination, "big")
        if self.options:
            check += sum_of(self.options)
        header = _LAYOUT.pack(
            first,
            self.traffic_class,
            self.total_length,
            self.identification,
            flags,
            self.ttl,
            self.protocol,
            finish(check),
            self.source,
            self.destination,
        )
        return header + self.options.ljust(length - LENGTH, b"\0") if self.options else header
