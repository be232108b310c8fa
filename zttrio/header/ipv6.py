"""The IPv6 header and its extension headers (RFC 8200): read and written, not acted upon.

Which of them a host obeys, and what it answers to those it does not like, is decided in the stack;
this file finds them, and stops looking before a chain or a list of options becomes work.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .frame import Buffer

__all__ = [
    "DESTINATION_OPTIONS",
    "FRAGMENT",
    "FRAGMENT_LENGTH",
    "HOP_BY_HOP",
    "LENGTH",
    "MAX_EXTENSION_HEADERS",
    "MAX_OPTIONS",
    "NO_NEXT_HEADER",
    "OPTION_JUMBO_PAYLOAD",
    "OPTION_ROUTER_ALERT",
    "ROUTING",
    "ExtensionHeader",
    "FragmentHeader",
    "Ipv6Header",
    "Option",
    "RoutingHeader",
    "emit_options",
    "iter_extension_headers",
    "iter_options",
]

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60

MAX_EXTENSION_HEADERS = 8
"""Arbitrary; RFC 8200 4.1 knows five useful ones, RFC 8504 5.3 lets hosts set a limit."""
MAX_OPTIONS = 8
"""Options other than padding in one header: RFC 8504 5.3's default, and Linux's."""

OPTION_PAD1 = 0
OPTION_PADN = 1
OPTION_ROUTER_ALERT = 5
OPTION_JUMBO_PAYLOAD = 0xC2

_LAYOUT = struct.Struct("!IHBB16s16s")
LENGTH = _LAYOUT.size
_FRAGMENT_LAYOUT = struct.Struct("!BBHI")
FRAGMENT_LENGTH = _FRAGMENT_LAYOUT.size
_WALKED = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS))


@attrs.define
class Ipv6Header:
    """The 40 octets in front of an IPv6 packet.

    Attributes:
        source: packed, 16 octets.
        destination: packed, 16 octets.
        next_header: a transport's protocol number, or an extension header's.
        payload_length: octets behind this header, extension headers among them.
        hop_limit: routers that the packet may still pass.
        traffic_class: DSCP and ECN.
        flow_label: 20 bits (RFC 6437).
    """

    source: bytes
    destination: bytes
    next_header: int
    payload_length: int
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0, available: int | None = None) -> Ipv6Header:
        """Read the header at *offset* of *data*.

        Jumbograms (RFC 2675) are not known: their payload length of 0 is taken as it stands.

        Args:
            data: must hold the whole header.
            offset: where the header starts.
            available: octets of the packet that are really there, from *offset* on, if *data* is
                only its first piece; None if it is all of it.

        Raises:
            HeaderError: it is cut short, the version is wrong, or more payload is announced than
                there is.
        """
        header = cls.parse_quoted(data, offset)
        there = (len(data) - offset if available is None else available) - LENGTH
        if header.payload_length > there:
            raise HeaderError(f"IPv6 payload length {header.payload_length}: only {there} octets")
        return header

    @classmethod
    def parse_quoted(cls, data: Buffer, offset: int = 0) -> Ipv6Header:
        """Read a header that an ICMPv6 error quotes: the packet behind it is cut short.

        Raises:
            HeaderError: it is cut short itself, or the version is wrong.
        """
        if len(data) - offset < LENGTH:
            raise HeaderError(f"IPv6 header needs {LENGTH} octets, got {len(data) - offset}")
        word, length, next_header, hop_limit, source, destination = _LAYOUT.unpack_from(
            data, offset
        )
        if word >> 28 != 6:
            raise HeaderError(f"IPv6 version {word >> 28}: must be 6")
        return cls(
            source,
            destination,
            next_header,
            length,
            hop_limit,
            word >> 20 & 0xFF,
            word & 0xF_FFFF,
        )

    def emit(self) -> bytes:
        """The same header as octets.

        Raises:
            struct.error: a value does not fit its field.
        """
        return _LAYOUT.pack(
            6 << 28 | self.traffic_class << 20 | self.flow_label,
            self.payload_length,
            self.next_header,
            self.hop_limit,
            self.source,
            self.destination,
        )


@attrs.define
class ExtensionHeader:
    """Where one extension header lies.

    Attributes:
        kind: HOP_BY_HOP, ROUTING, FRAGMENT or DESTINATION_OPTIONS.
        offset: where it starts in the data that was walked.
        length: its octets, a multiple of 8.
        next_header: what follows it.
    """

    kind: int
    offset: int
    length: int
    next_header: int


def iter_extension_headers(
    next_header: int, data: Buffer, offset: int = LENGTH, end: int | None = None
) -> Iterator[ExtensionHeader]:
    """The extension headers that start at *offset*, in order.

    The walk ends at the first header of another kind (a transport, NO_NEXT_HEADER, or something
    unknown: the last one's ``next_header`` says what, and it starts at ``offset + length``) and
    behind the header of a fragment that is not the first, whose octets are no headers.

    Args:
        next_header: the IPv6 header's.
        data: the packet, or its first piece if that holds all extension headers.
        offset: where the IPv6 header ends.
        end: where the packet ends, if before the end of *data* (Ethernet pads short frames).

    Raises:
        HeaderError: a header is cut short, or there are more than MAX_EXTENSION_HEADERS.
    """
    if end is None:
        end = len(data)
    for _ in range(MAX_EXTENSION_HEADERS):
        if next_header not in _WALKED:
            return
        if end - offset < 8:
            raise HeaderError(f"IPv6 extension header {next_header}: cut short")
        length = 8 if next_header == FRAGMENT else 8 + 8 * data[offset + 1]
        if length > end - offset:
            raise HeaderError(f"IPv6 extension header {next_header}: {length} octets do not fit")
        header = ExtensionHeader(next_header, offset, length, data[offset])
        is_later_fragment = (
            next_header == FRAGMENT and (data[offset + 2] << 8 | data[offset + 3]) > 7
        )
        yield header
        if is_later_fragment:
            return
        next_header = header.next_header
        offset += length
    if next_header in _WALKED:
        raise HeaderError(f"IPv6 extension headers: more than {MAX_EXTENSION_HEADERS}")


@attrs.define
class FragmentHeader:
    """What makes a packet one of several fragments (RFC 8200 section 4.5).

    Attributes:
        next_header: of the reassembled packet, meaningful in the first fragment.
        fragment_offset: octets, a multiple of 8.
        more_fragments: this is not the last one.
        identification: what fragments of one packet have in common.
    """

    next_header: int
    fragment_offset: int
    more_fragments: bool
    identification: int

    @property
    def is_atomic(self) -> bool:
        """True for a whole packet that only pretends to be a fragment (RFC 6946)."""
        return not self.more_fragments and self.fragment_offset == 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> FragmentHeader:
        """Read the header at *offset* of *data*; its reserved bits are ignored (RFC 8200 4.5).

        Raises:
            HeaderError: fewer than eight octets are there.
        """
        there = len(data) - offset
        if there < FRAGMENT_LENGTH:
            raise HeaderError(f"IPv6 fragment header needs {FRAGMENT_LENGTH} octets, got {there}")
        next_header, _, field, identification = _FRAGMENT_LAYOUT.unpack_from(data, offset)
        return cls(next_header, field & 0xFFF8, field & 1 != 0, identification)

    def emit(self) -> bytes:
        """The same header as octets.

        Raises:
            ValueError: the offset lies between multiples of 8.
            struct.error: a value does not fit its field.
        """
        if self.fragment_offset & 7:
            raise ValueError(f"IPv6 fragment offset {self.fragment_offset}: not a multiple of 8")
        field = self.fragment_offset | self.more_fragments
        return _FRAGMENT_LAYOUT.pack(self.next_header, 0, field, self.identification)


@attrs.define
class RoutingHeader:
    """What a routing header says to those who do not know its type (RFC 8200 section 4.4).

    With no segments left it is ignored, otherwise the packet is refused; type 0 is to be treated
    as unknown (RFC 5095).

    Attributes:
        next_header: what follows.
        routing_type: which kind of route.
        segments_left: stations that it still has to visit.
        data: the type's own octets.
    """

    next_header: int
    routing_type: int
    segments_left: int
    data: bytes = bytes(4)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> RoutingHeader:
        """Read the header at *offset* of *data*.

        Raises:
            HeaderError: it is cut short.
        """
        there = len(data) - offset
        if there < 8 or there < 8 + 8 * data[offset + 1]:
            raise HeaderError(f"IPv6 routing header: cut short after {there} octets")
        end = offset + 8 + 8 * data[offset + 1]
        return cls(data[offset], data[offset + 2], data[offset + 3], bytes(data[offset + 4 : end]))

    def emit(self) -> bytes:
        """The same header as octets.

        Raises:
            ValueError: the header would not be a multiple of 8 octets, or has more than 2048.
        """
        length = 4 + len(self.data)
        if length & 7 or not 8 <= length <= 2048:
            raise ValueError(f"IPv6 routing header of {length} octets: not a multiple of 8")
        start = (self.next_header, (length >> 3) - 1, self.routing_type, self.segments_left)
        return bytes(start) + self.data


@attrs.define
class Option:
    """One option of a hop-by-hop or destination options header (RFC 8200 section 4.2).

    Attributes:
        kind: OPTION_ROUTER_ALERT and its kin.
        data: its octets.
        offset: where its kind stands in the data that was walked, for an ICMPv6 pointer.
    """

    kind: int
    data: bytes
    offset: int = 0

    @property
    def action(self) -> int:
        """What one who does not know this kind has to do.

        0: skip it; 1: drop the packet; 2: drop it and send a parameter problem; 3: the same, unless
        the packet was multicast.
        """
        return self.kind >> 6


def iter_options(data: Buffer, offset: int, length: int) -> Iterator[Option]:
    """The options of a hop-by-hop or destination options header, without the padding.

    Args:
        data: what the header lies in.
        offset: where the header (not its first option) starts.
        length: octets of the header, as `ExtensionHeader.length`.

    Raises:
        HeaderError: an option runs out of its header, or there are more than MAX_OPTIONS.
    """
    end = min(offset + length, len(data))
    at = offset + 2
    count = 0
    while at < end:
        kind = data[at]
        if kind == OPTION_PAD1:
            at += 1
            continue
        after = at + 2 + data[at + 1] if at + 2 <= end else end + 1
        if after > end:
            raise HeaderError(f"IPv6 option {kind}: runs out of its header")
        if kind != OPTION_PADN:
            count += 1
            if count > MAX_OPTIONS:
                raise HeaderError(f"IPv6 options: more than {MAX_OPTIONS}")
            yield Option(kind, bytes(data[at + 2 : after]), at)
        at = after


def emit_options(next_header: int, options: Iterable[Option]) -> bytes:
    """A hop-by-hop or destination options header with *options*, padded to a multiple of 8.

    Options with an alignment of their own (RFC 8200 section 4.2) are put where they come; none of
    the ones a host sends has one that matters here (router alert wants 2n, and comes first).

    Raises:
        ValueError: an option or the header becomes too long.
    """
    body = b"".join(bytes((o.kind, len(o.data))) + o.data for o in options)
    gap = -(2 + len(body)) % 8
    if gap:
        body += b"\0" if gap == 1 else bytes((OPTION_PADN, gap - 2)) + bytes(gap - 2)
    return bytes((next_header, (2 + len(body) >> 3) - 1)) + body
