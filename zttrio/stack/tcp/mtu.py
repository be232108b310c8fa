"""Finding the segment size that a path takes when nobody says so (RFC 4821, RFC 8899).

Routers ought to report packets that are too long.  Where the reports are lost, large segments
vanish while small ones arrive, and a connection hangs after its handshake.  So after three timeouts
in a row we try a size that every path takes, and look for the largest one that works from there.
"""

from __future__ import annotations

__all__ = ["BLACK_HOLE_RETRIES", "FLOOR", "MtuSearch"]

BLACK_HOLE_RETRIES = 3  # timeouts in a row before the size is suspected: RFC 8899 MAX_PROBES
BASE = {4: 1200, 16: 1280}  # RFC 8899 5.1.2 BASE_PLPMTU, and IPv6's minimum; by address octets
FLOOR = {4: 576, 16: 1280}  # RFC 9293 3.7.1; by address octets
CLOSE_ENOUGH = 32  # arbitrary: not worth another probe
AGAIN = 600.0  # RFC 8899 5.1.1 PMTU_RAISE_TIMER


class MtuSearch:
    """A search for the largest packet between what works and what the wire takes.

    Attributes:
        low: octets of a packet that works.
        high: octets of a packet that might.
        probe_end: sequence number behind the probe that is under way, -1 if none is.
        probe_size: its packet's octets.
        next_at: when the next probe may go out.
    """

    __slots__ = ("_top", "high", "low", "next_at", "probe_end", "probe_size")

    def __init__(self, top: int) -> None:
        self._top = top
        self.low = top
        self.high = top
        self.probe_end = -1
        self.probe_size = 0
        self.next_at = 0.0

    def retreat(self, octets: int, now: float) -> bool:
        """Large packets vanish: fall back; False if there is nothing smaller to try.

        Args:
            octets: of an address of the family.
            now: the time.
        """
        for size in (BASE[octets], FLOOR[octets]):
            if size < self.low:
                self.low = size
                self.high = self._top
                self.probe_end = -1
                self.next_at = now
                return True
        return False

    def next_probe(self, now: float) -> int:
        """Octets of the packet to try now, 0 for none."""
        if self.probe_end >= 0 or now < self.next_at:
            return 0
        if self.high - self.low < CLOSE_ENOUGH:
            if self.low >= self._top - CLOSE_ENOUGH:
                return 0
            self.high = self._top  # ten minutes have passed: the path may have changed
        return min((self.low + self.high + 1) // 2, self.high)

    def arrived(self) -> None:
        """The probe was acknowledged: its size works."""
        self.low = self.probe_size
        self.probe_end = -1

    def vanished(self, now: float) -> None:
        """The probe was lost: its size does not work."""
        self.high = self.probe_size - 1
        self.probe_end = -1
        if self.high - self.low < CLOSE_ENOUGH:
            self.next_at = now + AGAIN
