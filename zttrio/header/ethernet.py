"""The Ethernet II header (RFC 894, RFC 2464).

An 802.3 length (a type below 0x0600) and a VLAN tag come out as the *ethertype* they look like;
nobody upstairs knows those types, so such frames end in the counter for unknown ones.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = ["ETHERTYPE_ARP", "ETHERTYPE_IPV4", "ETHERTYPE_IPV6", "LENGTH", "EthernetHeader"]

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

_LAYOUT = struct.Struct("!6s6sH")
LENGTH = _LAYOUT.size


@attrs.define
class EthernetHeader:
    """The 14 octets in front of every frame."""

    destination: bytes
    source: bytes
    ethertype: int

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> EthernetHeader:
        """Read the header at *offset* of *data*.

        Raises:
            HeaderError: fewer than 14 octets are there.
        """
        if len(data) - offset < LENGTH:
            raise HeaderError(f"Ethernet header needs {LENGTH} octets, got {len(data) - offset}")
        return cls(*_LAYOUT.unpack_from(data, offset))

    def emit(self) -> bytes:
        """The same header as octets."""
        return _LAYOUT.pack(self.destination, self.source, self.ethertype)
