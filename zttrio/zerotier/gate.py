"""How often something may happen, for each of many keys, in bounded memory.

Keys are chosen by whoever sends us datagrams, so a gate that is full says no to new keys: a flood
then costs new keys their turn for one interval, and never memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

__all__ = ["Bucket", "Gate"]

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
