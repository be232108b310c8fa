"""The UDP header (RFC 768)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = ["LENGTH", "UdpHeader"]

_LAYOUT = struct.Struct("!HHHH")
LENGTH = _LAYOUT.size


@attrs.define
class UdpHeader:
    """The eight octets in front of a datagram.

    Attributes:
        src_port: 0 if nobody wants an answer.
        dst_port: whose it is.
        length: octets of header and payload.
        checksum: 0 if the sender computed none, which IPv6 forbids (RFC 8200 section 8.1).
    """

    src_port: int
    dst_port: int
    length: int
    checksum: int = 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0, available: int | None = None) -> UdpHeader:
        """Read the header at *offset* of *data*.  The checksum is not verified here.

        Args:
            data: must hold the whole header.
            offset: where the header starts.
            available: octets of the datagram that are really there, from *offset* on, if *data* is
                only its first piece; None if it is all of it.

        Raises:
            HeaderError: it is cut short, or the length field contradicts what is there.
        """
        there = len(data) - offset
        if there < LENGTH:
            raise HeaderError(f"UDP header needs {LENGTH} octets, got {there}")
        header = cls(*_LAYOUT.unpack_from(data, offset))
        if available is None:
            available = there
        if not LENGTH <= header.length <= available:
            raise HeaderError(f"UDP length {header.length}: not between {LENGTH} and {available}")
        return header

    @classmethod
    def parse_quoted(cls, data: Buffer, offset: int = 0) -> UdpHeader:
        """Read a header that an ICMP error quotes, whose payload is missing.

        Raises:
            HeaderError: fewer than eight octets are there.
        """
        there = len(data) - offset
        if there < LENGTH:
            raise HeaderError(f"UDP header needs {LENGTH} octets, got {there}")
        return cls(*_LAYOUT.unpack_from(data, offset))

    def emit(self) -> bytes:
        """The same header as octets, with the checksum as it is in this object."""
        return _LAYOUT.pack(self.src_port, self.dst_port, self.length, self.checksum)
