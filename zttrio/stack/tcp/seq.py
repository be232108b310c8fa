"""Sequence numbers, unwrapped.

On the wire a sequence number is a point on a circle of 2**32, and comparing two of them needs care
(RFC 9293 3.4).  Inside this room they are ordinary integers that never wrap: a number from the wire
is unwrapped once, near a number we know, and masked once on its way out.  Everything between may
subtract and compare as usual.
"""

from __future__ import annotations

__all__ = ["MASK", "is_newer", "unwrap"]

MASK = 0xFFFF_FFFF


def unwrap(number: int, near: int) -> int:
    """The integer congruent to the 32-bit *number* that is closest to *near*.

    Exactly half a circle away counts as before *near*, so nothing half a circle off can pass for
    new data.
    """
    return near + ((number - near + 0x8000_0000) & MASK) - 0x8000_0000


def is_newer(a: int, b: int) -> bool:
    """True if the 32-bit timestamp *a* comes after *b* (RFC 7323 section 5.2)."""
    return 0 < (a - b) & MASK < 0x8000_0000
