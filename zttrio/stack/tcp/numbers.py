"""Numbers that have to be hard to guess: initial sequence numbers, timestamps, SYN cookies.

All come from one secret and a keyed hash (RFC 6528 section 3), so nothing is kept for them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

from .seq import MASK

if TYPE_CHECKING:
    import random

__all__ = ["COOKIE_LIFETIME", "Cookie", "Numbers"]

_PERIOD = 64.0  # seconds for which one cookie counter lasts; Linux's TCP_SYNCOOKIE_PERIOD
_LIFETIME = 2  # periods a cookie is good for, as Linux
COOKIE_LIFETIME = _LIFETIME * _PERIOD
_MSS = (216, 536, 1024, 1220, 1300, 1440, 1460, 8960)
"""What three bits can say of the peer's MSS: usual values, rounded down to."""
_STAMP_BITS = 6
_NO_SCALE = 15


@attrs.frozen
class Cookie:
    """What a SYN cookie remembers of a SYN.

    Attributes:
        mss: rounded down.
        window_scale: None without timestamps, too.
        sack_ok: False without timestamps, too.
        ecn_ok: False without timestamps, too.
    """

    mss: int
    window_scale: int | None = None
    sack_ok: bool = False
    ecn_ok: bool = False


class Numbers:
    """The secret of one stack, and what is made of it."""

    __slots__ = ("_secret",)

    def __init__(self, rng: random.Random) -> None:
        self._secret = rng.randbytes(32)

    def hash(self, key: bytes) -> int:
        """64 bits that nobody else can compute."""
        digest = hashlib.blake2b(key, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "big")

    def initial(self, key: bytes, now: float) -> tuple[int, int]:
        """An initial sequence number and a timestamp offset for the connection of *key*.

        The first moves on by one every four microseconds (RFC 6528), the second lets our
        timestamps between the same two ends move on steadily (RFC 7323 5.4).
        """
        number = self.hash(key)
        return ((number & MASK) + int(now * 250_000)) & MASK, number >> 32

    # SYN cookies (RFC 4987 3.6): a counter of 5 bits, the MSS in 3, a hash of 24

    def cookie(self, key: bytes, irs: int, mss: int, now: float) -> int:
        """An initial sequence number that will tell what the SYN said.

        Args:
            key: the connection's.
            irs: the SYN's sequence number.
            mss: what it announced.
            now: the time.
        """
        index = max((i for i, size in enumerate(_MSS) if size <= mss), default=0)
        return self._cookie(key, irs, int(now / _PERIOD), index)

    def _cookie(self, key: bytes, irs: int, period: int, index: int) -> int:
        head = (period & 31) << 27 | index << 24
        # The index goes through the hash as well, or anybody could change it.
        said = irs << 72 | period << 8 | index
        return head | (self.hash(key + said.to_bytes(13, "big")) & 0xFF_FFFF)

    def read_cookie(self, key: bytes, irs: int, iss: int, now: float) -> Cookie | None:
        """What the SYN said, from the *iss* that its sender acknowledges; None if it is not ours.

        A cookie is good for 64 to 128 seconds.
        """
        current = int(now / _PERIOD)
        age = (current - (iss >> 27)) & 31
        if age >= _LIFETIME or age > current:
            return None
        index = iss >> 24 & 7
        if self._cookie(key, irs, current - age, index) != iss:
            return None
        return Cookie(_MSS[index])

    @staticmethod
    def stamp_options(stamp: int, window_scale: int | None, *, sack_ok: bool, ecn_ok: bool) -> int:
        """A timestamp, at most 63 ms older than *stamp*, that carries three options of a SYN."""
        bits = _NO_SCALE if window_scale is None else window_scale
        bits |= sack_ok << 4 | ecn_ok << 5
        value = stamp & ~((1 << _STAMP_BITS) - 1) | bits
        if value > stamp:
            value -= 1 << _STAMP_BITS
        return value & MASK

    @staticmethod
    def read_options(cookie: Cookie, echo: int) -> Cookie:
        """*cookie* with the options that the echo of such a timestamp brings back."""
        scale = echo & 15
        return attrs.evolve(
            cookie,
            window_scale=None if scale == _NO_SCALE else scale,
            sack_ok=bool(echo & 16),
            ecn_ok=bool(echo & 32),
        )
