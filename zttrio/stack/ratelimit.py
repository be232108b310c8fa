"""A token bucket: so many at once, so many a second."""

from __future__ import annotations

from math import inf

__all__ = ["TokenBucket"]


class TokenBucket:
    """Says how often something may happen.

    Args:
        rate: tokens that come back in a second.
        burst: tokens when full, as at the start.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated = -inf

    def take(self, now: float) -> bool:
        """Take one token; False if there is none."""
        if now > self._updated:
            gained = (now - self._updated) * self._rate
            self._tokens = min(self._burst, self._tokens + gained)
            self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
