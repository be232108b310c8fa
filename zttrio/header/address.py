"""Hardware and IP addresses in the form the stack uses them: packed octets.

An IP address inside the stack is ``bytes`` of 4 or 16 octets, its length is its family, and a MAC
is ``bytes`` of 6.  Text and `ipaddress` objects exist at the edges only, and this is the edge.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = [
    "ALL_NODES",
    "ALL_ROUTERS",
    "BROADCAST_MAC",
    "INTERFACE_INDEX",
    "IPV4_BROADCAST",
    "IPV4_UNSPECIFIED",
    "IPV6_UNSPECIFIED",
    "MAC_LENGTH",
    "UNSPECIFIED_MAC",
    "ip_text",
    "is_link_local",
    "is_loopback",
    "is_multicast",
    "is_multicast_mac",
    "is_unspecified",
    "mac_text",
    "multicast_mac",
    "packed",
    "parse_mac",
    "solicited_node",
    "unspecified",
]

MAC_LENGTH = 6
BROADCAST_MAC = b"\xff" * 6
UNSPECIFIED_MAC = bytes(6)
"""ARP's "not known yet" (RFC 826); never the address of a station."""

IPV4_UNSPECIFIED = bytes(4)
IPV4_BROADCAST = b"\xff" * 4
"""The limited broadcast address, RFC 919 section 7."""
IPV6_UNSPECIFIED = bytes(16)
INTERFACE_INDEX = 2
"""The number of a Network's one interface, and the scope of its link-local addresses (RFC 4007
section 6).  1 is the loopback's, as on every Linux."""
_IPV6_LOOPBACK = bytes(15) + b"\x01"

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
"""Every node of the link, RFC 4291 section 2.7.1."""
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
"""Every router of the link, RFC 4291 section 2.7.1."""
_SOLICITED_NODE_PREFIX = bytes.fromhex("ff0200000000000000000001ff")
_MAC_TEXT = re.compile(r"[0-9a-fA-F]{2}([:-]?)(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")
_MAPPED_PREFIX = bytes.fromhex("00000000000000000000ffff")


def mac_text(mac: bytes) -> str:
    """``02:00:5e:10:00:01``, the way Linux prints it."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """The six octets of a MAC written with colons, hyphens, or nothing between them.

    Raises:
        ValueError: *text* is not a MAC.
    """
    if _MAC_TEXT.fullmatch(text) is None:
        raise ValueError(f"MAC address {text!r}: needs six pairs of hex digits")
    return bytes.fromhex(text.replace(":", "").replace("-", ""))


def ip_text(address: bytes) -> str:
    """*address* for people: dotted quads, or RFC 5952 text.

    A v4-mapped address is ``::ffff:192.0.2.1`` under every Python (RFC 5952 section 5, and what
    ``getpeername`` callers know from the kernel); `ipaddress` prints it so only since 3.13.

    Raises:
        ValueError: *address* is neither 4 nor 16 octets long.
    """
    if len(address) == 4:
        return "{}.{}.{}.{}".format(*address)
    if len(address) != 16:
        raise ValueError(f"IP address {address.hex()!r}: needs 4 or 16 octets")
    if address.startswith(_MAPPED_PREFIX):
        return "::ffff:{}.{}.{}.{}".format(*address[12:])
    return str(IPv6Address(address))


def packed(address: str | IPv4Address | IPv6Address) -> bytes:
    """The 4 or 16 octets of *address*.

    A scope ID (``fe80::1%2``) has no place in them; who needs it reads it before.

    Raises:
        ValueError: *address* is not a literal IP address.
    """
    return (ip_address(address) if isinstance(address, str) else address).packed


def unspecified(family_of: bytes) -> bytes:
    """The all-zero address of the family that *family_of* belongs to."""
    return IPV4_UNSPECIFIED if len(family_of) == 4 else IPV6_UNSPECIFIED


def is_unspecified(address: bytes) -> bool:
    """True for 0.0.0.0 and ``::``."""
    return address in (IPV4_UNSPECIFIED, IPV6_UNSPECIFIED)


def is_multicast(address: bytes) -> bool:
    """True for 224.0.0.0/4 and ff00::/8; the limited broadcast address is not one of them."""
    return address[0] & 0xF0 == 0xE0 if len(address) == 4 else address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    """True for 127.0.0.0/8 and ``::1``."""
    return address[0] == 127 if len(address) == 4 else address == _IPV6_LOOPBACK


def is_link_local(address: bytes) -> bool:
    """True for the unicast ranges 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291 2.5.6)."""
    if len(address) == 4:
        return address[0] == 169 and address[1] == 254
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_multicast_mac(mac: bytes) -> bool:
    """True for group addresses, the broadcast address among them (IEEE 802's I/G bit)."""
    return mac[0] & 1 != 0


def multicast_mac(address: bytes) -> bytes:
    """The Ethernet group of a multicast *address* (RFC 1112 section 6.4, RFC 2464 section 7)."""
    if len(address) == 4:
        return b"\x01\x00\x5e" + bytes((address[1] & 0x7F,)) + address[2:]
    return b"\x33\x33" + address[12:]


def solicited_node(address: bytes) -> bytes:
    """The group that neighbor solicitations for an IPv6 *address* go to (RFC 4291 2.7.1)."""
    return _SOLICITED_NODE_PREFIX + address[13:]
