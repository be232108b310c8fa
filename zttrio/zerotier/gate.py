"""How often something may happen, for each of many keys, in bounded memory.

Keys are chosen by whoever sends us datagrams, so a gate that is full says no to new keys: a flood
then costs new keys their turn for one interval, and never memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

__all__ = ["Bucket", "Buckets", "Gate"]

K = TypeVar("K", bound=Hashable)


class Gate(Generic[K]):
    """Lets each key through at most once per interval.

    Args:
        interval: seconds.
        limit: keys remembered at once.
    """

    __slots__ = ("_last", "interval", "limit")

    def __init__(self, interval: float, limit: int) -> None:
        self.interval = interval
        self.limit = limit
        self._last: dict[K, float] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._last)

    def allows(self, key: K, now: float) -> bool:
        """True, and the interval begins for *key*; or False, and nothing has changed."""
        last = self._last.get(key)
        if last is not None:
            if now - last < self.interval:
                return False
            del self._last[key]
        elif len(self._last) >= self.limit:
            self.expire(now)
            if len(self._last) >= self.limit:
                return False
        self._last[key] = now
        return True

    def expire(self, now: float) -> None:
        """Forget the keys whose interval is over."""
        while self._last:
            key = next(iter(self._last))
            if now - self._last[key] < self.interval:
                return
            del self._last[key]


@attrs.define
class Bucket:
    """A token bucket: *rate* a second on average, *burst* at once.

    Attributes:
        rate: tokens a second.
        burst: most tokens it holds; it starts full.
    """

    rate: float
    burst: float
    tokens: float = attrs.field(init=False)
    filled_at: float = -1e18

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, amount: float, now: float) -> bool:
        """True if *amount* tokens were there; they are gone then."""
        if now > self.filled_at:
            self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True


class Buckets(Generic[K]):
    """A token bucket for each of many keys; a new key that finds no room gets nothing.

    Args:
        rate: tokens a second.
        burst: most tokens that a key has.
        limit: keys remembered at once.
    """

    __slots__ = ("_buckets", "_burst", "_limit", "_rate")

    def __init__(self, rate: float, burst: float, limit: int) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: dict[K, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, now: float) -> bool:
        """True if *key* had a token; it is gone then."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._limit:
                return False
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        return bucket.take(1, now)

    def expire(self, now: float) -> None:
        """Forget the keys whose buckets are full again."""
        full = self._burst / self._rate
        for key in [k for k, one in self._buckets.items() if now - one.filled_at >= full]:
            del self._buckets[key]
