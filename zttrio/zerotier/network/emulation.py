"""IPv6 neighbour discovery that needs no packets: addresses that name their node answer themselves.

In a 6PLANE or RFC 4193 address the node address can be read off, and a MAC follows from a node
address.  So where the network says so the member answers its own stack's solicitations (12.2), and
a large network carries no multicast for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zttrio.header.checksum import transport_checksum

from .derived import mac_of, sixplane

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface

__all__ = ["NeighborEmulation"]

_ETHERNET = 14
_SOLICITATION = _ETHERNET + 64  # an IPv6 header and an ICMPv6 solicitation without options
_TYPE = b"\x86\xdd"
_ICMPV6 = 58
_SOLICIT, _ADVERTISE = 135, 136
_IPV6_HEADER = bytes.fromhex("6000000000203aff")  # 32 octets of ICMPv6, hop limit 255
_FLAGS = bytes.fromhex("60000000")  # solicited, override
_TARGET_LINK_ADDRESS = bytes.fromhex("0201")
_RFC4193_BITS, _SIXPLANE_BITS = 88, 40


class _Prefix(NamedTuple):
    """The part of an own address that every member's has, and where the node address follows."""

    octets: bytes
    own: bytes


class NeighborEmulation:
    """Answers solicitations for addresses out of which a node address can be read.

    Args:
        network_id: of the network.
        address: our node address.
        addresses: our static addresses on the network.
    """

    def __init__(
        self, network_id: int, address: bytes, addresses: Iterable[IPv4Interface | IPv6Interface]
    ) -> None:
        self._network_id = network_id
        self._address = address
        self._prefixes: list[_Prefix] = []
        plane = sixplane(network_id, address).packed[:5]
        for interface in addresses:
            own, bits = interface.packed, interface.network.prefixlen
            if len(own) != 16:
                continue
            if bits == _RFC4193_BITS and own[0] == 0xFD and own[9:11] == b"\x99\x93":
                self._prefixes.append(_Prefix(own[:11], own))
            elif bits == _SIXPLANE_BITS and own[:5] == plane:
                self._prefixes.append(_Prefix(own[:5], own))

    def answer(self, frame: bytes) -> bytes | None:
        """The neighbour advertisement for a solicitation of the local stack, as a frame to it.

        It is given whether or not the node exists.

        Returns:
            None if *frame* is anything else, or asks for something that only the network knows.
        """
        if (
            len(frame) < _SOLICITATION
            or frame[12:14] != _TYPE
            or frame[20] != _ICMPV6
            or frame[54] != _SOLICIT
            or frame[:6] == b"\xff\xff\xff\xff\xff\xff"
        ):
            return None
        target = frame[62:78]
        for prefix, own in self._prefixes:
            length = len(prefix)
            if target[:length] == prefix:
                node = target[length : length + 5]
                if node == self._address or not any(node):
                    return None
                return self._advertise(target, own, mac_of(node, self._network_id), frame[6:12])
        return None

    def _advertise(self, target: bytes, own: bytes, mac: bytes, asker: bytes) -> bytes:
        body = _FLAGS + target + _TARGET_LINK_ADDRESS + mac
        head = bytes((_ADVERTISE, 0))
        checksum = transport_checksum(target, own, _ICMPV6, head + bytes(2), body)
        return b"".join(
            (asker, mac, _TYPE, _IPV6_HEADER, target, own, head, checksum.to_bytes(2, "big"), body)
        )
