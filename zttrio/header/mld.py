"""Multicast listener discovery: MLDv2's messages (RFC 3810), and MLDv1's (RFC 2710).

``parse`` takes a whole ICMPv6 message, from its type on; ``emit`` returns one, checksum included.
The packets around them have hop limit 1, a link-local source and a router alert; the stack checks.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .icmpv6 import MLD_DONE, MLD_QUERY, MLD_REPORT, MLD_REPORT_V2, IcmpV6
from .membership import GroupRecord, decode_time, encode_time, parse_addresses

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = ["MldQuery", "MldReport", "MldV1Message"]

_WIDTH = 16
_V1_LENGTH = 24
_V2_LENGTH = 28
_QUERY_V2 = struct.Struct("!BBH")
_SUPPRESS = 0x08


def _message(data: Buffer, offset: int, kinds: tuple[int, ...], length: int) -> IcmpV6:
    message = IcmpV6.parse(data, offset)
    if message.type not in kinds:
        raise HeaderError(f"ICMPv6 type {message.type}: expected {kinds}")
    if len(data) - offset < length:
        raise HeaderError(f"MLD message needs {length} octets, got {len(data) - offset}")
    return message


@attrs.define
class MldQuery:
    """A router asks who listens (RFC 3810 section 5.1).

    Attributes:
        group: packed; unspecified in a general query.
        max_response_delay: seconds within which to answer.
        sources: packed; empty unless the query is for these senders only.
        suppress: routers are not to start their timers (the S flag).
        robustness: the querier's robustness variable, 0 if it does not say.
        query_interval: seconds between general queries, 0 if it does not say.
        version: 1 or 2; a query of version 1 carries group and delay only.
    """

    group: bytes
    max_response_delay: float
    sources: tuple[bytes, ...] = ()
    suppress: bool = False
    robustness: int = 0
    query_interval: int = 0
    version: int = 2

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> MldQuery:
        """Read the query that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, of another type, or longer than version 1 and shorter than
                version 2 (RFC 3810 section 8.1).
        """
        code = _message(data, offset, (MLD_QUERY,), _V1_LENGTH).rest >> 16
        group = bytes(data[offset + 8 : offset + 24])
        there = len(data) - offset
        if there == _V1_LENGTH:
            return cls(group, code / 1000, version=1)
        if there < _V2_LENGTH:
            raise HeaderError(f"MLD query of {there} octets: neither version 1 nor 2")
        flags, interval, count = _QUERY_V2.unpack_from(data, offset + 24)
        return cls(
            group,
            decode_time(code, 12) / 1000,
            parse_addresses(data, offset + _V2_LENGTH, count, _WIDTH),
            flags & _SUPPRESS != 0,
            flags & 7,
            decode_time(interval, 4),
        )

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets; times are rounded down to what can be said."""
        delay = round(self.max_response_delay * 1000)
        if self.version == 1:
            message = IcmpV6(MLD_QUERY, 0, rest=min(delay, 0xFFFF) << 16, body=self.group)
            return message.emit(source, destination)
        flags = self.suppress * _SUPPRESS | self.robustness
        interval = encode_time(self.query_interval, 4)
        start = _QUERY_V2.pack(flags, interval, len(self.sources))
        body = b"".join((self.group, start, *self.sources))
        message = IcmpV6(MLD_QUERY, 0, rest=encode_time(delay, 12) << 16, body=body)
        return message.emit(source, destination)


@attrs.define
class MldReport:
    """A host says what it listens to, in version 2 (RFC 3810 section 5.2)."""

    records: tuple[GroupRecord, ...]

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> MldReport:
        """Read the report that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        count = _message(data, offset, (MLD_REPORT_V2,), 8).rest & 0xFFFF
        records: list[GroupRecord] = []
        offset += 8
        for _ in range(count):
            record = GroupRecord.parse(data, offset, width=_WIDTH)
            records.append(record)
            offset += record.length
        return cls(tuple(records))

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        body = b"".join(record.emit() for record in self.records)
        message = IcmpV6(MLD_REPORT_V2, 0, rest=len(self.records), body=body)
        return message.emit(source, destination)


@attrs.define
class MldV1Message:
    """A report or a farewell of version 1 (RFC 2710).

    Attributes:
        type: MLD_REPORT or MLD_DONE.
        group: packed, 16 octets.
    """

    type: int
    group: bytes

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> MldV1Message:
        """Read the message at *offset* of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        message = _message(data, offset, (MLD_REPORT, MLD_DONE), _V1_LENGTH)
        return cls(message.type, bytes(data[offset + 8 : offset + 24]))

    def emit(self, source: bytes, destination: bytes) -> bytes:
        """The message as octets, with the checksum for these two packed addresses."""
        return IcmpV6(self.type, 0, body=self.group).emit(source, destination)
