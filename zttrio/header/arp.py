"""ARP for IPv4 over Ethernet (RFC 826), the only combination that is in use."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .ethernet import ETHERTYPE_IPV4

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = ["LENGTH", "REPLY", "REQUEST", "ArpPacket"]

REQUEST = 1
REPLY = 2

_HARDWARE_ETHERNET = 1
_KIND = (_HARDWARE_ETHERNET, ETHERTYPE_IPV4, 6, 4)
_LAYOUT = struct.Struct("!HHBBH6s4s6s4s")
LENGTH = _LAYOUT.size


@attrs.define
class ArpPacket:
    """A question for, or an answer with, the MAC behind an IPv4 address.

    Attributes:
        operation: REQUEST or REPLY; other values come through and mean nothing to a host.
        sender_mac: who speaks.
        sender_ip: packed; unspecified in a probe (RFC 5227 section 1.1).
        target_mac: all zero in a request.
        target_ip: packed.
    """

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> ArpPacket:
        """Read the packet at *offset* of *data*; octets behind it are Ethernet padding.

        Raises:
            HeaderError: it is too short, or not about IPv4 over Ethernet.
        """
        if len(data) - offset < LENGTH:
            raise HeaderError(f"ARP packet needs {LENGTH} octets, got {len(data) - offset}")
        fields = _LAYOUT.unpack_from(data, offset)
        if fields[:4] != _KIND:
            raise HeaderError(f"ARP packet: not IPv4 over Ethernet but {fields[:4]}")
        return cls(*fields[4:])

    def emit(self) -> bytes:
        """The same packet as octets, without Ethernet header and padding."""
        return _LAYOUT.pack(
            *_KIND,
            self.operation,
            self.sender_mac,
            self.sender_ip,
            self.target_mac,
            self.target_ip,
        )
