"""What IGMPv3 (RFC 3376) and MLDv2 (RFC 3810) have in common: group records and time codes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "ALLOW_NEW_SOURCES",
    "BLOCK_OLD_SOURCES",
    "CHANGE_TO_EXCLUDE",
    "CHANGE_TO_INCLUDE",
    "MODE_IS_EXCLUDE",
    "MODE_IS_INCLUDE",
    "GroupRecord",
    "decode_time",
    "encode_time",
    "parse_addresses",
]

MODE_IS_INCLUDE = 1
MODE_IS_EXCLUDE = 2
CHANGE_TO_INCLUDE = 3
CHANGE_TO_EXCLUDE = 4
ALLOW_NEW_SOURCES = 5
BLOCK_OLD_SOURCES = 6

_LAYOUT = struct.Struct("!BBH")


def decode_time(code: int, mantissa: int) -> int:
    """The number that a time code stands for, in the code's own unit.

    Small codes stand for themselves, larger ones are a small floating-point number (RFC 3376
    section 4.1.1, RFC 3810 section 5.1.3).

    Args:
        code: of one octet, or of two.
        mantissa: its bits: 4 in a code of one octet, 12 in one of two.
    """
    if code < 1 << mantissa + 3:
        return code
    return (code & (1 << mantissa) - 1 | 1 << mantissa) << (code >> mantissa & 7) + 3


def encode_time(value: int, mantissa: int) -> int:
    """The code for the largest number that is not above *value*; see `decode_time`."""
    if value < 1 << mantissa + 3:
        return value
    exponent = min(value.bit_length() - 1 - mantissa - 3, 7)
    significant = min(value >> exponent + 3, (2 << mantissa) - 1)
    return 1 << mantissa + 3 | exponent << mantissa | significant & (1 << mantissa) - 1


def parse_addresses(data: Buffer, offset: int, count: int, width: int) -> tuple[bytes, ...]:
    """*count* packed addresses of *width* octets that start at *offset*.

    Raises:
        HeaderError: fewer are there.
    """
    end = offset + count * width
    if end > len(data):
        raise HeaderError(
            f"{count} addresses need {count * width} octets, got {len(data) - offset}"
        )
    return tuple(bytes(data[at : at + width]) for at in range(offset, end, width))


@attrs.define
class GroupRecord:
    """What a host wants to hear of one group (RFC 3376 section 4.2.4, RFC 3810 section 5.2.4).

    Attributes:
        kind: MODE_IS_INCLUDE and its kin; those who do not know it skip the record.
        group: packed, of the family that the message belongs to.
        sources: packed.
        auxiliary: octets nobody has found a use for, a multiple of 4.
    """

    kind: int
    group: bytes
    sources: tuple[bytes, ...] = ()
    auxiliary: bytes = b""

    @property
    def length(self) -> int:
        """Octets of the record."""
        return 4 + len(self.group) * (1 + len(self.sources)) + len(self.auxiliary)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0, *, width: int) -> GroupRecord:
        """Read the record at *offset* of *data*, in a message whose addresses are *width* octets.

        Raises:
            HeaderError: it is cut short.
        """
        there = len(data) - offset
        if there < 4 + width:
            raise HeaderError(f"group record needs {4 + width} octets, got {there}")
        kind, words, count = _LAYOUT.unpack_from(data, offset)
        sources = parse_addresses(data, offset + 4 + width, count, width)
        end_of_sources = offset + 4 + width * (1 + count)
        end = end_of_sources + 4 * words
        if end > len(data):
            raise HeaderError(f"group record needs {end - offset} octets, got {there}")
        group = bytes(data[offset + 4 : offset + 4 + width])
        return cls(kind, group, sources, bytes(data[end_of_sources:end]))

    def emit(self) -> bytes:
        """The same record as octets.

        Raises:
            ValueError: the auxiliary data is no multiple of 4 octets.
            struct.error: a value does not fit its field.
        """
        if len(self.auxiliary) & 3:
            raise ValueError(f"auxiliary data of {len(self.auxiliary)} octets: no multiple of 4")
        start = _LAYOUT.pack(self.kind, len(self.auxiliary) >> 2, len(self.sources))
        return b"".join((start, self.group, *self.sources, self.auxiliary))
