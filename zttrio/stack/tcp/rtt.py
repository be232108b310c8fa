"""How long a round trip takes, and so how long to wait before sending again (RFC 6298)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from zttrio.config import Config

__all__ = ["RttEstimator"]

MIN_RTT_WINDOW = 300.0  # Linux's tcp_min_rtt_wlen: a path may get longer


@attrs.define
class RttEstimator:
    """RFC 6298 for one path.

    The floor is put under the variance, not under the sum, as Linux does: a path whose round trip
    never varies still waits `rto_min` longer than the round trip, so a peer that delays its ACK
    does not look like a loss.

    Attributes:
        rto_min: seconds, see `Config`.
        rto_max: seconds.
        rto: the timeout before back-off.
        backoff: how often the timeout has been doubled.
        srtt: smoothed round-trip time, 0 before the first sample.
        rttvar: its mean deviation.
        min_rtt: the least of the last five minutes or so, inf before the first sample.
        latest: the last sample.
    """

    rto_min: float
    rto_max: float
    rto: float
    backoff: int = 0
    srtt: float = 0.0
    rttvar: float = 0.0
    min_rtt: float = inf
    latest: float = 0.0
    _min_since: float = 0.0

    @classmethod
    def from_config(cls, config: Config) -> RttEstimator:
        """An estimator that has seen nothing yet."""
        return cls(config.rto_min, config.rto_max, config.rto_initial)

    def sample(self, rtt: float, now: float, expected: int = 1) -> None:
        """Take in one measurement of *rtt* seconds.

        Args:
            rtt: the measurement; never from a segment that was sent twice, unless a timestamp says
                which of the two was acknowledged (Karn's algorithm, RFC 7323 4).
            now: the time.
            expected: samples expected in one round trip; the more there are the less each one
                weighs (RFC 7323 appendix G).
        """
        self.latest = rtt
        if rtt <= self.min_rtt or now - self._min_since > MIN_RTT_WINDOW:
            self.min_rtt = rtt
            self._min_since = now
        if self.srtt:
            error = rtt - self.srtt
            self.rttvar += (abs(error) - self.rttvar) / (4 * expected)
            self.srtt += error / (8 * expected)
        else:
            self.srtt = rtt or 1e-9  # 0 means that there was no sample
            self.rttvar = rtt / 2
        spread = 4 * self.rttvar
        if spread < self.rto_min:
            spread = self.rto_min
        rto = self.srtt + spread
        self.rto = min(rto, self.rto_max)
        self.backoff = 0

    def timeout(self) -> float:
        """Seconds to wait now, back-off included (RFC 6298 5.5)."""
        if not self.backoff:
            return self.rto
        return min(self.rto * (1 << min(self.backoff, 30)), self.rto_max)
