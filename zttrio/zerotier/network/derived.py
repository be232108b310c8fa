"""What follows from a node address and a network ID: MACs, IPv6 addresses, multicast groups.

Numbers in brackets, here and in the other files about virtual networks, are sections of the VL2
specification.  Network IDs are integers of 64 bits, node addresses and MACs are octets.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface
from typing import NamedTuple

from zttrio.header.address import BROADCAST_MAC, mac_text

__all__ = [
    "BROADCAST",
    "Group",
    "address_of",
    "arp_group",
    "controller_of",
    "first_octet",
    "link_local",
    "mac_of",
    "ndp_group",
    "rfc4193",
    "sixplane",
]

_TAKEN = 0x52  # by QEMU and KVM
_INSTEAD = 0x32
_MASK_40 = (1 << 40) - 1


class Group(NamedTuple):
    """A multicast group (2.4).

    Attributes:
        mac: 6 octets.
        adi: additional distinguishing information, 32 bits; only ARP uses it.
    """

    mac: bytes
    adi: int = 0

    def __str__(self) -> str:
        return f"{mac_text(self.mac)}/{self.adi:08x}"


BROADCAST = Group(BROADCAST_MAC)


def controller_of(network_id: int) -> bytes:
    """The address of the node that decides about a network (2.1)."""
    return (network_id >> 24).to_bytes(5, "big")


def first_octet(network_id: int) -> int:
    """What every MAC of a network's members starts with (2.2)."""
    first = (network_id & 0xFE) | 0x02
    return _INSTEAD if first == _TAKEN else first


def mac_of(address: bytes, network_id: int) -> bytes:
    """The MAC of a member (2.2)."""
    return bytes((first_octet(network_id),)) + _mixed(address, network_id)


def address_of(mac: bytes, network_id: int) -> bytes:
    """The member whose MAC this is, if it is a member's: the first octet is not looked at (2.2)."""
    return _mixed(mac[1:], network_id)


def _mixed(five: bytes, network_id: int) -> bytes:
    # The network ID's octets 6, 5, 4, 3, 2: its low 48 bits without the last octet, reversed.
    mask = int.from_bytes((network_id >> 8 & _MASK_40).to_bytes(5, "big"), "little")
    return (int.from_bytes(five, "big") ^ mask).to_bytes(5, "big")


def rfc4193(network_id: int, address: bytes) -> IPv6Interface:
    """A member's address in the /88 that the network has by RFC 4193 (2.3)."""
    return IPv6Interface((b"\xfd" + network_id.to_bytes(8, "big") + b"\x99\x93" + address, 88))


def sixplane(network_id: int, address: bytes) -> IPv6Interface:
    """A member's address in the network's /40; the /80 around it is the member's own (2.3)."""
    folded = (network_id ^ network_id >> 32) & 0xFFFF_FFFF
    return IPv6Interface((b"\xfc" + folded.to_bytes(4, "big") + address + bytes(5) + b"\x01", 40))


def link_local(mac: bytes) -> IPv6Address:
    """The link-local address with the MAC's modified EUI-64 (2.3, RFC 4291 2.5.1)."""
    eui = bytes((mac[0] & 0xFD,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + eui)


def arp_group(ip: bytes) -> Group:
    """Where to ask who has an IPv4 address, packed (2.4)."""
    return Group(BROADCAST_MAC, int.from_bytes(ip, "big"))


def ndp_group(ip: bytes) -> Group:
    """Where to ask who has an IPv6 address, packed: its solicited-node group (2.4)."""
    return Group(b"\x33\x33\xff" + ip[13:])
