"""The Internet checksum (RFC 1071), and the pseudo-headers that transports put under it.

Sums here are ordinary integers that are congruent to the ones' complement sum modulo 65535: they
may be added, and grow, and are folded once at the end.  A big-endian number is congruent to the
sum of its 16-bit words, so one conversion and one division replace the loop; this is the fastest
way known in pure Python (420 to 700 MB/s, several times faster than summing an array).

The one trap of that trick is that 0 and 0xFFFF are the same number modulo 65535 but not the same
octets on the wire: RFC 1071 reaches 0 for all-zero data only.  Every function keeps that: a sum is
0 if and only if all its data is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "checksum",
    "finish",
    "fold",
    "pseudo_header",
    "sum_of",
    "transport_checksum",
    "update",
]

_MODULUS = 0xFFFF
_LANE = 2048
_WORTH_HALVING = 700  # octets from which on it saves more than it costs, as measured
_ETHERNET = 1536  # octets of which the first constant is half; a full-sized packet has 1500
_LOWER_6144, _LOWER_3072, _LOWER_1536 = ((1 << bits) - 1 for bits in (6144, 3072, 1536))


def sum_of(data: Buffer) -> int:
    """A sum of *data*, to be added to others; *data* of odd length counts a zero octet behind it.

    The sum of data that starts at an odd offset of the whole is this, shifted left by 8.
    """
    length = len(data)
    if length <= 2 * _LANE:
        number = int.from_bytes(data, "big")
        if length & 1:
            number <<= 8
        if _WORTH_HALVING < length <= _ETHERNET:
            # Each line adds the upper half of the number to the lower one: an eighth is divided.
            number = (number >> 6144) + (number & _LOWER_6144)
            number = (number >> 3072) + (number & _LOWER_3072)
            number = (number >> 1536) + (number & _LOWER_1536)
    else:
        # Division costs twice what the conversion does.  Adding the lanes first leaves one short
        # division, which halves the time for 64 KiB; below 4 KiB it gains nothing.
        even = length & ~1
        number = data[even] << 8 if even < length else 0
        for start in range(0, even, _LANE):
            number += int.from_bytes(data[start : min(start + _LANE, even)], "big")
    return number % _MODULUS or (_MODULUS if number else 0)


def fold(total: int) -> int:
    """Sixteen bits out of a *total* of sums: what RFC 1071 has before it complements.

    This is also what the checksum field of a CHECKSUM_PARTIAL frame holds, with the pseudo-header
    as the only data.
    """
    return total % _MODULUS or (_MODULUS if total else 0)


def finish(total: int) -> int:
    """The checksum for a *total* of sums: folded and complemented.

    Over data that contains its own right checksum this is 0.
    """
    return -total % _MODULUS if total else _MODULUS


def checksum(*pieces: Buffer) -> int:
    """The RFC 1071 checksum of *pieces*, as if they were joined; each may be of any length.

    Over data that contains its own right checksum this is 0.
    """
    total = 0
    is_odd = False
    for piece in pieces:
        total += sum_of(piece) << 8 if is_odd else sum_of(piece)
        is_odd ^= bool(len(piece) & 1)
    return finish(total)


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo-header, for both families (RFC 9293 section 3.1, RFC 8200 8.1).

    Args:
        source: packed, 4 or 16 octets.
        destination: packed, of the same family.
        protocol: the transport's number (the last next-header value for IPv6).
        length: octets of transport header and payload.
    """
    return int.from_bytes(source + destination, "big") % _MODULUS + protocol + length


def transport_checksum(
    source: bytes, destination: bytes, protocol: int, header: Buffer, payload: Buffer = b""
) -> int:
    """The TCP, UDP or ICMPv6 checksum of *header* and *payload* between two packed addresses.

    With a zero checksum field in *header* this is the value for the field; with the received value
    in it this is 0 if and only if nothing was damaged.  UDP has to send 0xFFFF where this is 0
    (RFC 768): write ``transport_checksum(...) or 0xFFFF`` there, and there only.
    """
    total = int.from_bytes(source + destination, "big") % _MODULUS + protocol
    total += len(header) + len(payload) + sum_of(header)
    if payload:
        total += sum_of(payload) << 8 if len(header) & 1 else sum_of(payload)
    return finish(total)


def update(checksum: int, old: int, new: int) -> int:
    """*checksum* after the 16-bit word *old* of its data has become *new* (RFC 1624 equation 3)."""
    return fold((checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new) ^ 0xFFFF
