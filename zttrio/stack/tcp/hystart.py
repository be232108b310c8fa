"""HyStart++: when slow start has gone on long enough (RFC 9406).

Slow start that ends only with a loss loses half a window.  Queues fill before they overflow, and a
round trip that grows from one round to the next tells of that.
"""

from __future__ import annotations

from math import inf

__all__ = ["HyStart"]

MIN_RTT_THRESH = 0.004  # RFC 9406 4.3, all of these
MAX_RTT_THRESH = 0.016
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5


class HyStart:
    """Slow start's brake, for one slow start.

    Attributes:
        is_conservative: in Conservative Slow Start, growing a quarter as fast.
    """

    __slots__ = (
        "_baseline",
        "_current_min",
        "_last_min",
        "_round_end",
        "_rounds",
        "_samples",
        "is_conservative",
    )

    def __init__(self) -> None:
        self.is_conservative = False
        self._round_end = -1
        self._last_min = inf
        self._current_min = inf
        self._samples = 0
        self._baseline = inf
        self._rounds = 0

    def acked(self, octets: int, rtt: float, una: int, nxt: int) -> int:
        """How much *octets* acknowledged let the window grow; negative: slow start is over.

        Args:
            octets: newly acknowledged.
            rtt: the round-trip sample of this ACK, 0 if there is none.
            una: what has been acknowledged, this included.
            nxt: what has been sent.
        """
        if una > self._round_end:
            # A new round: everything that was in flight when the last one began is acknowledged.
            if self.is_conservative:
                self._rounds += 1
                if self._rounds >= CSS_ROUNDS:
                    return -1
            self._round_end = nxt
            self._last_min, self._current_min = self._current_min, inf
            self._samples = 0
        if rtt > 0:
            self._samples += 1
            self._current_min = min(self._current_min, rtt)
            if self._samples >= N_RTT_SAMPLE and self._current_min < inf:
                self._judge()
        return octets // CSS_GROWTH_DIVISOR if self.is_conservative else octets

    def _judge(self) -> None:
        if self.is_conservative:
            if self._current_min < self._baseline:
                # The delay has gone again: it was no queue.
                self.is_conservative = False
                self._baseline = inf
            return
        if self._last_min == inf:
            return
        threshold = min(max(MIN_RTT_THRESH, self._last_min / MIN_RTT_DIVISOR), MAX_RTT_THRESH)
        if self._current_min >= self._last_min + threshold:
            self.is_conservative = True
            self._baseline = self._current_min
            self._rounds = 0
