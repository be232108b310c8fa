"""IGMP: version 3's messages (RFC 3376), and what is left of versions 1 and 2 (RFC 2236).

The packets around them have TTL 1 and a router alert.  Checksums are not verified here, so that
their errors can be counted apart: ``checksum(data)`` is 0 for an undamaged message.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .checksum import checksum
from .membership import GroupRecord, decode_time, encode_time, parse_addresses

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "LEAVE_GROUP",
    "LENGTH",
    "MEMBERSHIP_QUERY",
    "REPORT_V1",
    "REPORT_V2",
    "REPORT_V3",
    "ROUTER_ALERT",
    "IgmpMessage",
    "IgmpQuery",
    "IgmpReport",
]

MEMBERSHIP_QUERY = 0x11
REPORT_V1 = 0x12
REPORT_V2 = 0x16
LEAVE_GROUP = 0x17
REPORT_V3 = 0x22

ROUTER_ALERT = b"\x94\x04\x00\x00"
"""The IPv4 option of RFC 2113 that every IGMPv2 and v3 packet carries."""

_WIDTH = 4
_LAYOUT = struct.Struct("!BBH4s")
LENGTH = _LAYOUT.size
_QUERY_V3 = struct.Struct("!BBH")
_QUERY_V3_LENGTH = 12
_SUPPRESS = 0x08
_V1_RESPONSE_TIME = 10.0  # RFC 3376 7.2.1: what a query of version 1, which cannot say, means


def _fields(data: Buffer, offset: int, kinds: tuple[int, ...]) -> tuple[int, int, bytes]:
    if len(data) - offset < LENGTH:
        raise HeaderError(f"IGMP message needs {LENGTH} octets, got {len(data) - offset}")
    kind, code, _, group = _LAYOUT.unpack_from(data, offset)
    if kind not in kinds:
        raise HeaderError(f"IGMP type {kind:#04x}: not expected here")
    return kind, code, group


def _emit(kind: int, code: int, rest: bytes) -> bytes:
    value = checksum(bytes((kind, code)), rest)
    return bytes((kind, code)) + value.to_bytes(2, "big") + rest


@attrs.define
class IgmpQuery:
    """A router asks who listens (RFC 3376 section 4.1).

    Attributes:
        group: packed; unspecified in a general query.
        max_response_time: seconds within which to answer.
        sources: packed; empty unless the query is for these senders only.
        suppress: routers are not to start their timers (the S flag).
        robustness: the querier's robustness variable, 0 if it does not say.
        query_interval: seconds between general queries, 0 if it does not say.
        version: 1, 2 or 3; before 3 there are group and, in 2, response time only.
    """

    group: bytes
    max_response_time: float
    sources: tuple[bytes, ...] = ()
    suppress: bool = False
    robustness: int = 0
    query_interval: int = 0
    version: int = 3

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IgmpQuery:
        """Read the query that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, of another type, or longer than version 2 and shorter than
                version 3 (RFC 3376 section 7.1).
        """
        _, code, group = _fields(data, offset, (MEMBERSHIP_QUERY,))
        there = len(data) - offset
        if there == LENGTH:
            if code == 0:
                return cls(group, _V1_RESPONSE_TIME, version=1)
            return cls(group, code / 10, version=2)
        if there < _QUERY_V3_LENGTH:
            raise HeaderError(f"IGMP query of {there} octets: of no version")
        flags, interval, count = _QUERY_V3.unpack_from(data, offset + 8)
        return cls(
            group,
            decode_time(code, 4) / 10,
            parse_addresses(data, offset + _QUERY_V3_LENGTH, count, _WIDTH),
            flags & _SUPPRESS != 0,
            flags & 7,
            decode_time(interval, 4),
        )

    def emit(self) -> bytes:
        """The message as octets; times are rounded down to what can be said."""
        time = round(self.max_response_time * 10)
        if self.version < 3:
            return _emit(MEMBERSHIP_QUERY, 0 if self.version == 1 else min(time, 255), self.group)
        flags = self.suppress * _SUPPRESS | self.robustness
        interval = encode_time(self.query_interval, 4)
        start = _QUERY_V3.pack(flags, interval, len(self.sources))
        rest = b"".join((self.group, start, *self.sources))
        return _emit(MEMBERSHIP_QUERY, encode_time(time, 4), rest)


@attrs.define
class IgmpReport:
    """A host says what it listens to, in version 3 (RFC 3376 section 4.2)."""

    records: tuple[GroupRecord, ...]

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IgmpReport:
        """Read the report that goes from *offset* to the end of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        _, _, rest = _fields(data, offset, (REPORT_V3,))
        records: list[GroupRecord] = []
        offset += LENGTH
        for _ in range(int.from_bytes(rest[2:], "big")):
            record = GroupRecord.parse(data, offset, width=_WIDTH)
            records.append(record)
            offset += record.length
        return cls(tuple(records))

    def emit(self) -> bytes:
        """The message as octets."""
        body = b"".join(record.emit() for record in self.records)
        return _emit(REPORT_V3, 0, struct.pack("!HH", 0, len(self.records)) + body)


@attrs.define
class IgmpMessage:
    """A report or a farewell before version 3 (RFC 2236 section 2).

    Attributes:
        type: REPORT_V1, REPORT_V2 or LEAVE_GROUP.
        group: packed, 4 octets.
    """

    type: int
    group: bytes

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IgmpMessage:
        """Read the message at *offset* of *data*.

        Raises:
            HeaderError: it is malformed, or of another type.
        """
        kind, _, group = _fields(data, offset, (REPORT_V1, REPORT_V2, LEAVE_GROUP))
        return cls(kind, group)

    def emit(self) -> bytes:
        """The message as octets."""
        return _emit(self.type, 0, self.group)
