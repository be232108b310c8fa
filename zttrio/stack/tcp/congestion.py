"""How much may be in flight: RFC 5681 and the interface that other algorithms share.

An algorithm owns `cwnd` and `ssthresh` and is told what happened; it knows no segments and no
timers.  While losses are repaired `recovery` sets `cwnd` itself (PRR) and tells the algorithm only
about the beginning.  All sizes are octets, so a super-segment counts for what it carries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from .hystart import HyStart

__all__ = ["UNLIMITED", "Congestion", "NewReno", "initial_window"]

UNLIMITED = 1 << 62  # ssthresh before the first loss: RFC 5681 3.1 wants it arbitrarily high


def initial_window(mss: int) -> int:
    """The window at the start (RFC 6928 section 2)."""
    return min(10 * mss, max(2 * mss, 14600))


class Congestion(ABC):
    """One connection's congestion control.

    Attributes:
        cwnd: octets that may be in flight.
        ssthresh: below this, slow start.
        mss: payload octets of a full segment, without options.
    """

    __slots__ = ("_hystart", "_prior", "cwnd", "mss", "ssthresh")

    is_paced = False
    """True if `pacing_rate` is to be asked at all."""

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.cwnd = initial_window(mss)
        self.ssthresh = UNLIMITED
        self._prior: tuple[int, int] | None = None
        self._hystart: HyStart | None = None

    def acked(self, octets: int, rtt: float, srtt: float, una: int, nxt: int, now: float) -> None:
        """*octets* were newly acknowledged while the window was in full use.

        Args:
            octets: what the ACK acknowledged.
            rtt: the round-trip sample that came with it, 0 if none did.
            srtt: the smoothed round-trip time.
            una: SND.UNA, unwrapped.
            nxt: SND.NXT, unwrapped.
            now: the time.
        """
        if self.cwnd >= self.ssthresh:
            self.avoid(octets, srtt, now)
            return
        # Octets and not ACKs count (RFC 3465), without a limit for each ACK: one that covers a
        # whole super-segment is the rule here, as with Linux's receive offload.
        if self.ssthresh == UNLIMITED:
            # RFC 9406 4.3: for the first slow start; a later one ends at a known ssthresh.
            if self._hystart is None:
                self._hystart = HyStart()
            octets = self._hystart.acked(octets, rtt, una, nxt)
            if octets < 0:
                self.ssthresh = self.cwnd
                return
        self.cwnd += octets

    @abstractmethod
    def avoid(self, octets: int, srtt: float, now: float) -> None:
        """Congestion avoidance: *octets* were newly acknowledged."""

    @abstractmethod
    def reduced(self, flight_size: int, now: float) -> int:
        """The ssthresh for a loss (or an ECN mark) with *flight_size* octets outstanding."""

    def congested(self, flight_size: int, now: float) -> None:
        """A loss was found: lower `ssthresh`, and remember what to go back to."""
        self._prior = (self.cwnd, self.ssthresh)
        self.ssthresh = self.reduced(min(flight_size, self.cwnd), now)

    def timed_out(self, flight_size: int, now: float) -> None:
        """The retransmission timer fired (RFC 5681 3.1 equation 4)."""
        self.congested(flight_size, now)
        self.cwnd = self.mss

    def restart(self) -> None:
        """Nothing was sent for longer than a timeout: the window is stale (RFC 5681 4.1)."""
        self.cwnd = min(self.cwnd, initial_window(self.mss))

    def undo(self) -> None:
        """The last loss was none: go back to where we were."""
        if self._prior is not None:
            cwnd, ssthresh = self._prior
            self.cwnd = max(self.cwnd, cwnd)
            self.ssthresh = max(self.ssthresh, ssthresh)
            self._prior = None

    def change_mss(self, mss: int) -> None:
        """Segments have another size from now on (RFC 1191 6.5 keeps the window in octets)."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)

    def pacing_rate(self, srtt: float) -> float:
        """Octets a second at which to spread segments out; 0 sends them as the window opens."""
        del srtt
        return 0.0


class NewReno(Congestion):
    """Additive increase, multiplicative decrease (RFC 5681, RFC 6582)."""

    __slots__ = ("_counted",)

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._counted = 0

    def avoid(self, octets: int, srtt: float, now: float) -> None:
        """Grow by one segment for each window acknowledged."""
        del srtt, now
        self._counted += octets
        if self._counted >= self.cwnd:
            self._counted -= self.cwnd
            self.cwnd += self.mss

    def reduced(self, flight_size: int, now: float) -> int:
        """Half of what is outstanding (RFC 5681 equation 4)."""
        del now
        self._counted = 0
        return max(flight_size // 2, 2 * self.mss)
