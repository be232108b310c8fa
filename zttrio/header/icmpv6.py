"""ICMP for IPv6 (RFC 4443): the part that all its messages have in common.

What is inside the messages of neighbor discovery and of multicast listener discovery is read in
`ndp` and `mld`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .checksum import transport_checksum
from .ipv4 import PROTOCOL_ICMPV6

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "DESTINATION_UNREACHABLE",
    "ECHO_REPLY",
    "ECHO_REQUEST",
    "LENGTH",
    "MLD_DONE",
    "MLD_QUERY",
    "MLD_REPORT",
    "MLD_REPORT_V2",
    "NEIGHBOR_ADVERTISEMENT",
    "NEIGHBOR_SOLICITATION",
    "PACKET_TOO_BIG",
    "PARAMETER_PROBLEM",
    "PROBLEM_HEADER_FIELD",
    "PROBLEM_INCOMPLETE_CHAIN",
    "PROBLEM_NEXT_HEADER",
    "PROBLEM_OPTION",
    "REDIRECT",
    "ROUTER_ADVERTISEMENT",
    "ROUTER_SOLICITATION",
    "TIME_EXCEEDED",
    "TIME_EXCEEDED_HOP_LIMIT",
    "TIME_EXCEEDED_REASSEMBLY",
    "UNREACHABLE_ADDRESS",
    "UNREACHABLE_NO_ROUTE",
    "UNREACHABLE_PORT",
    "UNREACHABLE_PROHIBITED",
    "IcmpV6",
]

DESTINATION_UNREACHABLE = 1
PACKET_TOO_BIG = 2
TIME_EXCEEDED = 3
PARAMETER_PROBLEM = 4
ECHO_REQUEST = 128
ECHO_REPLY = 129
MLD_QUERY = 130  # RFC 2710, RFC 3810
MLD_REPORT = 131
MLD_DONE = 132
ROUTER_SOLICITATION = 133  # RFC 4861
ROUTER_ADVERTISEMENT = 134
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT = 137
MLD_REPORT_V2 = 143  # RFC 3810

# codes of DESTINATION_UNREACHABLE
UNREACHABLE_NO_ROUTE = 0
UNREACHABLE_PROHIBITED = 1
UNREACHABLE_ADDRESS = 3
UNREACHABLE_PORT = 4

# codes of TIME_EXCEEDED
TIME_EXCEEDED_HOP_LIMIT = 0
TIME_EXCEEDED_REASSEMBLY = 1

# codes of PARAMETER_PROBLEM
PROBLEM_HEADER_FIELD = 0
PROBLEM_NEXT_HEADER = 1
PROBLEM_OPTION = 2
PROBLEM_INCOMPLETE_CHAIN = 3  # RFC 7112

_LAYOUT = struct.Struct("!BBHI")
LENGTH = _LAYOUT.size


@attrs.define
class IcmpV6:
    """One ICMPv6 message.

    Attributes:
        type: ECHO_REQUEST and its kin.
        code: depends on *type*.
        checksum: as it was received; `emit` computes its own.
        rest: the four octets behind the checksum as a number: identifier and sequence number of an
            echo, the MTU of PACKET_TOO_BIG, the pointer of PARAMETER_PROBLEM.
        body: what follows: an echo's data, or the packet that an error quotes.
    """

    type: int
    code: int
    checksum: int = 0
    rest: int = 0
    body: Buffer = b""

    @property
    def is_error(self) -> bool:
        """True for messages that quote a packet and must not be answered (RFC 4443 2.1, 2.4)."""
        return self.type < 128

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IcmpV6:
        """Read the message that goes from *offset* to the end of *data*.

        The checksum is not verified here, so that its errors can be counted apart:
        ``transport_checksum(source, destination, PROTOCOL_ICMPV6, data)`` is 0 for an undamaged
        message.

        Raises:
            HeaderError: fewer than eight octets are there.
        """
        if len(data) - offset < LENGTH:
            raise HeaderError(f"ICMPv6 header needs {LENGTH} octets, got {len(data) - offset}")
        message = cls(*_LAYOUT.unpack_from(data, offset))
        message.body = data[offset + LENGTH :]
        return message

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The whole message as octets, with its checksum computed.

        Args:
            source: packed; of the packet that carries the message.
            destination: packed.
        """
        blank = _LAYOUT.pack(self.type, self.code, 0, self.rest)
        value = transport_checksum(source, destination, PROTOCOL_ICMPV6, blank, self.body)
        return b"".join((_LAYOUT.pack(self.type, self.code, value, self.rest), self.body))
