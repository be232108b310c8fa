"""Neighbor discovery's messages and options (RFC 4861): read and written, not judged.

Whether a message may be believed (hop limit 255, code 0, addresses that fit) depends on the packet
it came in and is checked in the stack.  What makes the octets themselves invalid is a HeaderError
here: cut short, or an option of length 0 (RFC 4861 section 4.6).

``parse`` takes a whole ICMPv6 message, from its type on; ``emit`` returns one, checksum included.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from . import icmpv6
from .icmpv6 import IcmpV6

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "INFINITY",
    "DnsServers",
    "NdOptions",
    "NeighborAdvertisement",
    "NeighborSolicitation",
    "PrefixInformation",
    "Redirect",
    "RouteInformation",
    "RouterAdvertisement",
    "RouterSolicitation",
]

INFINITY = 0xFFFF_FFFF
"""A lifetime that never ends, in seconds (RFC 4861 section 4.6.2)."""

_SOURCE_MAC = 1
_TARGET_MAC = 2
_PREFIX_INFORMATION = 3
_REDIRECTED_HEADER = 4
_MTU = 5
_NONCE = 14  # RFC 3971
_ROUTE_INFORMATION = 24  # RFC 4191
_DNS_SERVERS = 25  # RFC 8106

_ON_LINK = 0x80
_AUTONOMOUS = 0x40
_MANAGED = 0x80
_OTHER = 0x40
_IS_ROUTER = 0x80000000
_IS_SOLICITED = 0x40000000
_IS_OVERRIDE = 0x20000000

_PREFIX_LAYOUT = struct.Struct("!BBBBIII16s")
_ROUTE_LAYOUT = struct.Struct("!BBBBI")
_RA_TIMES = struct.Struct("!II")


@attrs.define
class PrefixInformation:
    """A prefix that is on the link, or that addresses may be made of (RFC 4861 section 4.6.2).

    Attributes:
        prefix: packed, 16 octets, as it was sent: bits behind *prefix_length* may be set.
        prefix_length: 0 to 128.
        is_on_link: its addresses are neighbors.
        is_autonomous: hosts may make an address of it (RFC 4862).
        valid_lifetime: seconds, or INFINITY.
        preferred_lifetime: seconds, or INFINITY.
    """

    prefix: bytes
    prefix_length: int
    is_on_link: bool
    is_autonomous: bool
    valid_lifetime: int
    preferred_lifetime: int

    def emit(self) -> bytes:
        """The option as octets."""
        flags = self.is_on_link * _ON_LINK | self.is_autonomous * _AUTONOMOUS
        lifetimes = (self.valid_lifetime, self.preferred_lifetime)
        start = (_PREFIX_INFORMATION, 4, self.prefix_length, flags)
        return _PREFIX_LAYOUT.pack(*start, *lifetimes, 0, self.prefix)


@attrs.define
class RouteInformation:
    """A route through the router that speaks (RFC 4191 section 2.3).

    Attributes:
        prefix: packed, 16 octets.
        prefix_length: 0 to 128.
        preference: 1 high, 0 medium, -1 low.
        lifetime: seconds, or INFINITY.
    """

    prefix: bytes
    prefix_length: int
    preference: int
    lifetime: int

    def emit(self) -> bytes:
        """The option as octets, always in its longest form."""
        flags = (self.preference & 3) << 3
        start = _ROUTE_LAYOUT.pack(_ROUTE_INFORMATION, 3, self.prefix_length, flags, self.lifetime)
        return start + self.prefix


@attrs.define
class DnsServers:
    """Recursive name servers (RFC 8106 section 5.1).

    Attributes:
        lifetime: seconds, or INFINITY; 0 withdraws them.
        addresses: packed, 16 octets each.
    """

    lifetime: int
    addresses: tuple[bytes, ...]

    def emit(self) -> bytes:
        """The option as octets."""
        start = struct.pack("!BBHI", _DNS_SERVERS, 1 + 2 * len(self.addresses), 0, self.lifetime)
        return start + b"".join(self.addresses)


@attrs.define
class NdOptions:
    """The options of one message, whichever it is.

    Options that do not belong to that message are read all the same; who does not expect them does
    not look.  Unknown kinds are skipped, and so are known ones whose length is not theirs.  Of the
    kinds that may come once the first counts, as on Linux.

    Attributes:
        source_mac: the sender's, or None.
        target_mac: the target's, or None.
        mtu: of the link, or None.
        nonce: at least 6 octets (RFC 3971 section 5.3.2, RFC 7527), or None.
        prefixes: in order.
        routes: in order.
        dns_servers: in order.
        redirected: the start of the packet that was redirected, or None.
    """

    source_mac: bytes | None = None
    target_mac: bytes | None = None
    mtu: int | None = None
    nonce: bytes | None = None
    prefixes: tuple[PrefixInformation, ...] = ()
    routes: tuple[RouteInformation, ...] = ()
    dns_servers: tuple[DnsServers, ...] = ()
    redirected: bytes | None = None

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> NdOptions:
        """Read the options from *offset* to the end of *data*.

        Raises:
            HeaderError: an option has length 0 or runs out of the message: discard all of it.
        """
        options = cls()
        prefixes: list[PrefixInformation] = []
        routes: list[RouteInformation] = []
        dns_servers: list[DnsServers] = []
        end = len(data)
        while offset < end:
            length = 8 * data[offset + 1] if offset + 1 < end else 0
            if length == 0 or offset + length > end:
                raise HeaderError(f"ND option {data[offset]}: length {length} at {offset}")
            kind = data[offset]
            option = bytes(data[offset : offset + length])
            if kind == _PREFIX_INFORMATION:
                if length == 32 and option[2] <= 128:
                    prefixes.append(_read_prefix(option))
            elif kind == _ROUTE_INFORMATION:
                if length <= 24 and option[2] <= 8 * (length - 8):
                    routes.append(_read_route(option))
            elif kind == _DNS_SERVERS:
                if length >= 24 and length % 16 == 8:
                    lifetime = int.from_bytes(option[4:8], "big")
                    addresses = tuple(option[at : at + 16] for at in range(8, length, 16))
                    dns_servers.append(DnsServers(lifetime, addresses))
            else:
                options._take(kind, option)
            offset += length
        options.prefixes = tuple(prefixes)
        options.routes = tuple(routes)
        options.dns_servers = tuple(dns_servers)
        return options

    def _take(self, kind: int, option: bytes) -> None:
        """Keep an option that may come once, unless there is one."""
        length = len(option)
        if kind == _SOURCE_MAC and self.source_mac is None and length == 8:
            self.source_mac = option[2:]
        elif kind == _TARGET_MAC and self.target_mac is None and length == 8:
            self.target_mac = option[2:]
        elif kind == _MTU and self.mtu is None and length == 8:
            self.mtu = int.from_bytes(option[4:], "big")
        elif kind == _NONCE and self.nonce is None:
            self.nonce = option[2:]
        elif kind == _REDIRECTED_HEADER and self.redirected is None:
            self.redirected = option[8:]

    def emit(self) -> bytes:
        """All of them as octets.

        Raises:
            ValueError: the nonce or the redirected packet does not fill a multiple of 8 octets.
        """
        parts: list[bytes] = []
        if self.source_mac is not None:
            parts.append(bytes((_SOURCE_MAC, 1)) + self.source_mac)
        if self.target_mac is not None:
            parts.append(bytes((_TARGET_MAC, 1)) + self.target_mac)
        if self.mtu is not None:
            parts.append(struct.pack("!BBHI", _MTU, 1, 0, self.mtu))
        if self.nonce is not None:
            parts.append(_emit_padded(_NONCE, self.nonce))
        parts += [option.emit() for option in self.prefixes]
        parts += [option.emit() for option in self.routes]
        parts += [option.emit() for option in self.dns_servers]
        if self.redirected is not None:
            parts.append(_emit_padded(_REDIRECTED_HEADER, bytes(6) + self.redirected))
        return b"".join(parts)


def _read_prefix(option: bytes) -> PrefixInformation:
    _, _, prefix_length, flags, valid, preferred, _, prefix = _PREFIX_LAYOUT.unpack(option)
    return PrefixInformation(
        prefix,
        prefix_length,
        flags & _ON_LINK != 0,
        flags & _AUTONOMOUS != 0,
        valid,
        preferred,
    )


def _read_route(option: bytes) -> RouteInformation:
    _, _, prefix_length, flags, lifetime = _ROUTE_LAYOUT.unpack_from(option)
    return RouteInformation(
        option[8:].ljust(16, b"\0"), prefix_length, _PREFERENCES[flags >> 3 & 3], lifetime
    )


_PREFERENCES = (0, 1, 0, -1)
"""By the two bits of RFC 4191 section 2.1; the reserved 2 is to be read as medium."""


def _emit_padded(kind: int, value: bytes) -> bytes:
    if (2 + len(value)) % 8:
        raise ValueError(f"ND option {kind}: {2 + len(value)} octets are not a multiple of 8")
    return bytes((kind, 2 + len(value) >> 3)) + value


def _message(data: Buffer, offset: int, kind: int, length: int) -> IcmpV6:
    """The message at *offset*, if it is of that *kind* and has *length* octets before options.

    Raises:
        HeaderError: it is not, or it has not.
    """
    message = IcmpV6.parse(data, offset)
    if message.type != kind:
        raise HeaderError(f"ICMPv6 type {message.type}: expected {kind}")
    if len(data) - offset < length:
        raise HeaderError(f"ICMPv6 type {kind} needs {length} octets, got {len(data) - offset}")
    return message


@attrs.define
class RouterSolicitation:
    """A host looks for routers (RFC 4861 section 4.1).

    Attributes:
        options: ``source_mac``, unless the source is unspecified.
    """

    options: NdOptions = attrs.field(factory=NdOptions)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> RouterSolicitation:
        """Read the message that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        _message(data, offset, icmpv6.ROUTER_SOLICITATION, 8)
        return cls(NdOptions.parse(data, offset + 8))

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        message = IcmpV6(icmpv6.ROUTER_SOLICITATION, 0, body=self.options.emit())
        return message.emit(source, destination)


@attrs.define
class RouterAdvertisement:
    """A router introduces itself, the link and its prefixes (RFC 4861 section 4.2).

    Attributes:
        hop_limit: what hosts should use, or 0 if it does not say.
        is_managed: addresses come from DHCPv6.
        has_other: other settings come from DHCPv6.
        preference: 1 high, 0 medium, -1 low (RFC 4191 section 2.2).
        lifetime: seconds that it wants to be a default router; 0 if it does not.
        reachable_time: seconds a neighbor counts as reachable, or 0 if it does not say.
        retransmit_time: seconds between solicitations, or 0 if it does not say.
        options: ``source_mac``, ``mtu``, ``prefixes``, ``routes``, ``dns_servers``.
    """

    hop_limit: int = 0
    is_managed: bool = False
    has_other: bool = False
    preference: int = 0
    lifetime: int = 0
    reachable_time: float = 0.0
    retransmit_time: float = 0.0
    options: NdOptions = attrs.field(factory=NdOptions)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> RouterAdvertisement:
        """Read the message that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        message = _message(data, offset, icmpv6.ROUTER_ADVERTISEMENT, 16)
        flags = message.rest >> 16 & 0xFF
        reachable, retransmit = _RA_TIMES.unpack_from(data, offset + 8)
        return cls(
            message.rest >> 24,
            flags & _MANAGED != 0,
            flags & _OTHER != 0,
            _PREFERENCES[flags >> 3 & 3],
            message.rest & 0xFFFF,
            reachable / 1000,
            retransmit / 1000,
            NdOptions.parse(data, offset + 16),
        )

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        flags = self.is_managed * _MANAGED | self.has_other * _OTHER | (self.preference & 3) << 3
        times = _RA_TIMES.pack(
            round(self.reachable_time * 1000), round(self.retransmit_time * 1000)
        )
        rest = self.hop_limit << 24 | flags << 16 | self.lifetime
        message = IcmpV6(
            icmpv6.ROUTER_ADVERTISEMENT, 0, rest=rest, body=times + self.options.emit()
        )
        return message.emit(source, destination)


@attrs.define
class NeighborSolicitation:
    """Who has this address? (RFC 4861 section 4.3).

    Attributes:
        target: packed, 16 octets.
        options: ``source_mac``, unless the source is unspecified; ``nonce`` in a probe for
            duplicates (RFC 7527).
    """

    target: bytes
    options: NdOptions = attrs.field(factory=NdOptions)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> NeighborSolicitation:
        """Read the message that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        _message(data, offset, icmpv6.NEIGHBOR_SOLICITATION, 24)
        return cls(bytes(data[offset + 8 : offset + 24]), NdOptions.parse(data, offset + 24))

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        body = self.target + self.options.emit()
        return IcmpV6(icmpv6.NEIGHBOR_SOLICITATION, 0, body=body).emit(source, destination)


@attrs.define
class NeighborAdvertisement:
    """I have this address (RFC 4861 section 4.4).

    Attributes:
        target: packed, 16 octets.
        is_router: the sender forwards packets.
        is_solicited: it answers a solicitation, so the way there works too.
        is_override: believe it even if something else is known.
        options: ``target_mac``.
    """

    target: bytes
    is_router: bool = False
    is_solicited: bool = False
    is_override: bool = False
    options: NdOptions = attrs.field(factory=NdOptions)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> NeighborAdvertisement:
        """Read the message that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        rest = _message(data, offset, icmpv6.NEIGHBOR_ADVERTISEMENT, 24).rest
        return cls(
            bytes(data[offset + 8 : offset + 24]),
            rest & _IS_ROUTER != 0,
            rest & _IS_SOLICITED != 0,
            rest & _IS_OVERRIDE != 0,
            NdOptions.parse(data, offset + 24),
        )

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        rest = (
            self.is_router * _IS_ROUTER
            | self.is_solicited * _IS_SOLICITED
            | self.is_override * _IS_OVERRIDE
        )
        body = self.target + self.options.emit()
        message = IcmpV6(icmpv6.NEIGHBOR_ADVERTISEMENT, 0, rest=rest, body=body)
        return message.emit(source, destination)


@attrs.define
class Redirect:
    """There is a better first hop for this destination (RFC 4861 section 4.5).

    Attributes:
        target: packed; the better first hop, or *destination* itself if that is a neighbor.
        destination: packed.
        options: ``target_mac``, ``redirected``.
    """

    target: bytes
    destination: bytes
    options: NdOptions = attrs.field(factory=NdOptions)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> Redirect:
        """Read the message that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        _message(data, offset, icmpv6.REDIRECT, 40)
        return cls(
            bytes(data[offset + 8 : offset + 24]),
            bytes(data[offset + 24 : offset + 40]),
            NdOptions.parse(data, offset + 40),
        )

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        body = self.target + self.destination + self.options.emit()
        return IcmpV6(icmpv6.REDIRECT, 0, body=body).emit(source, destination)
