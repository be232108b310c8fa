"""ICMP for IPv4 (RFC 792, RFC 1122 section 3.2.2, RFC 1191)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .checksum import finish, sum_of

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "ADDRESS_MASK_REPLY",
    "ADDRESS_MASK_REQUEST",
    "DESTINATION_UNREACHABLE",
    "ECHO_REPLY",
    "ECHO_REQUEST",
    "ERROR_TYPES",
    "LENGTH",
    "PARAMETER_PROBLEM",
    "REDIRECT",
    "SOURCE_QUENCH",
    "TIMESTAMP_REPLY",
    "TIMESTAMP_REQUEST",
    "TIME_EXCEEDED",
    "UNREACHABLE_FRAGMENTATION_NEEDED",
    "UNREACHABLE_HOST",
    "UNREACHABLE_NETWORK",
    "UNREACHABLE_PORT",
    "UNREACHABLE_PROHIBITED",
    "UNREACHABLE_PROTOCOL",
    "IcmpV4",
]

ECHO_REPLY = 0
DESTINATION_UNREACHABLE = 3
SOURCE_QUENCH = 4
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12
TIMESTAMP_REQUEST = 13
TIMESTAMP_REPLY = 14
ADDRESS_MASK_REQUEST = 17
ADDRESS_MASK_REPLY = 18

ERROR_TYPES = frozenset(
    (DESTINATION_UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM)
)
"""What must never be answered with an error (RFC 1122 section 3.2.2), and quotes a packet."""

# codes of DESTINATION_UNREACHABLE
UNREACHABLE_NETWORK = 0
UNREACHABLE_HOST = 1
UNREACHABLE_PROTOCOL = 2
UNREACHABLE_PORT = 3
UNREACHABLE_FRAGMENTATION_NEEDED = 4
UNREACHABLE_PROHIBITED = 13

_LAYOUT = struct.Struct("!BBHI")
LENGTH = _LAYOUT.size


@attrs.define
class IcmpV4:
    """One ICMP message.

    Attributes:
        type: ECHO_REQUEST and its kin.
        code: depends on *type*.
        checksum: as it was received; `emit` computes its own.
        rest: the four octets behind the checksum as a number: identifier and sequence number of an
            echo, the next-hop MTU in its lower half with UNREACHABLE_FRAGMENTATION_NEEDED.
        body: what follows: an echo's data, or the packet that an error quotes.
    """

    type: int
    code: int
    checksum: int = 0
    rest: int = 0
    body: Buffer = b""

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IcmpV4:
        """Read the message that goes from *offset* to the end of *data*.

        The checksum is not verified here, so that its errors can be counted apart:
        ``checksum(data)`` is 0 for an undamaged message.

        Raises:
            HeaderError: fewer than eight octets are there.
        """
        if len(data) - offset < LENGTH:
            raise HeaderError(f"ICMP header needs {LENGTH} octets, got {len(data) - offset}")
        message = cls(*_LAYOUT.unpack_from(data, offset))
        message.body = data[offset + LENGTH :]
        return message

    def emit(self) -> bytes:
        """The whole message as octets, with its checksum computed."""
        total = (self.type << 8) + self.code + self.rest + sum_of(self.body)
        header = _LAYOUT.pack(self.type, self.code, finish(total), self.rest)
        return b"".join((header, self.body))
