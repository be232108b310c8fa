"""Physical addresses: where a UDP datagram comes from or goes to, and which of them make paths.

Knows the InetAddress encoding (VL1 specification, 2) and the scopes of IP addresses (17.3).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, NamedTuple

from zttrio.errors import HeaderError
from zttrio.header.address import ip_text, packed

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = [
    "GLOBAL",
    "LINK_LOCAL",
    "LOOPBACK",
    "MULTICAST",
    "NONE",
    "PRIVATE",
    "PSEUDO_PRIVATE",
    "SHARED",
    "Endpoint",
    "emit_endpoint",
    "is_usable",
    "parse_endpoint",
    "scope_of",
]

NONE, MULTICAST, LOOPBACK, PSEUDO_PRIVATE, GLOBAL, LINK_LOCAL, SHARED, PRIVATE = range(8)

_PORT = struct.Struct("!H")
_MAPPED = bytes(10) + b"\xff\xff"
# Networks of their owners that the reference treats as private in practice, 17.3.
_PSEUDO_PRIVATE_FIRST = frozenset((6, 11, 21, 22, 25, 26, 28, 29, 30, 51, 55, 56))
_PRIVATE_NETWORKS = tuple(
    (int(net.network_address), int(net.netmask))
    for net in map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "172.16.0.0/12",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
        ),
    )
)
# Tunnels of a broker: the reference refuses VL1 inside them.
_TUNNEL_BROKER = IPv6Network("2001:470::/32").network_address.packed[:4]
_IPV6_LOOPBACK = bytes(15) + b"\x01"
_LINK_LOCAL_LOOPBACK = bytes.fromhex("fe800000000000000000000000000001")


class Endpoint(NamedTuple):
    """An IP address and a UDP port.

    Attributes:
        ip: packed, 4 or 16 octets.
        port: 0 to 65535.
    """

    ip: bytes
    port: int

    def __str__(self) -> str:
        return f"{ip_text(self.ip)}/{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The endpoint written as ``10.0.0.1/9993`` or ``2001:db8::1/9993``.

        Raises:
            ValueError: *text* is not one.
        """
        address, slash, port = text.partition("/")
        if not slash or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
            raise ValueError(f"endpoint {text!r}: has the form ADDRESS/PORT")
        return cls(packed(address), int(port))

    def unmapped(self) -> Endpoint:
        """The IPv4 endpoint behind ``::ffff:a.b.c.d``; anything else unchanged."""
        if len(self.ip) == 16 and self.ip.startswith(_MAPPED):
            return Endpoint(self.ip[12:], self.port)
        return self


def emit_endpoint(endpoint: Endpoint | None) -> bytes:
    """The InetAddress encoding of *endpoint*: 1, 7 or 19 octets."""
    if endpoint is None:
        return b"\x00"
    kind = b"\x04" if len(endpoint.ip) == 4 else b"\x06"
    return kind + endpoint.ip + _PORT.pack(endpoint.port)


def parse_endpoint(data: Buffer, offset: int) -> tuple[Endpoint | None, int]:
    """Read an InetAddress; returns it (None for other kinds of links) and where it ends.

    Raises:
        HeaderError: there is none at *offset*.
    """
    if offset >= len(data):
        raise HeaderError(f"InetAddress at {offset}: only {len(data)} octets")
    kind = data[offset]
    offset += 1
    if kind == 0:
        return None, offset
    if kind == 3:
        if offset + 2 > len(data):
            raise HeaderError("InetAddress of type 3: truncated")
        end = offset + 2 + _PORT.unpack_from(data, offset)[0]
    elif kind in (1, 2, 4):
        end = offset + 6
    elif kind == 6:
        end = offset + 18
    else:
        raise HeaderError(f"InetAddress: type {kind} does not exist")
    if end > len(data):
        raise HeaderError(f"InetAddress of type {kind}: ends at {end} of {len(data)} octets")
    if kind < 4:
        return None, end
    return Endpoint(bytes(data[offset : end - 2]), _PORT.unpack_from(data, end - 2)[0]), end


def scope_of(ip: bytes) -> int:
    """Which of the eight scopes of 17.3 *ip* (packed) is in; higher is nearer."""
    if len(ip) == 4:
        return _scope_of_ipv4(ip)
    if ip[0] == 0xFF:
        return MULTICAST
    if ip in (_IPV6_LOOPBACK, _LINK_LOCAL_LOOPBACK):
        return LOOPBACK
    if ip[12] == 127 and ip.startswith(_MAPPED):
        return LOOPBACK
    if not any(ip):
        return NONE
    if ip[0] == 0xFE and ip[1] & 0xC0 == 0x80:
        return LINK_LOCAL
    if ip[0] & 0xFE == 0xFC:
        return PRIVATE
    return GLOBAL


def _scope_of_ipv4(ip: bytes) -> int:
    first = ip[0]
    if first in (0, 255):
        return NONE
    if first == 127:
        return LOOPBACK
    if 224 <= first < 240:
        return MULTICAST
    if first >= 240 or first in _PSEUDO_PRIVATE_FIRST:
        return PSEUDO_PRIVATE
    if first == 169 and ip[1] == 254:
        return LINK_LOCAL
    value = int.from_bytes(ip, "big")
    for network, netmask in _PRIVATE_NETWORKS:
        if value & netmask == network:
            return PRIVATE
    return GLOBAL


def is_usable(ip: bytes) -> bool:
    """True if a path may lead to *ip* (17.3)."""
    scope = scope_of(ip)
    if scope == GLOBAL:
        return len(ip) == 4 or ip[:4] != _TUNNEL_BROKER
    return scope in (PSEUDO_PRIVATE, SHARED, PRIVATE)
