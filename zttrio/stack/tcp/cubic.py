"""CUBIC: a window that depends on the time since the last loss, not on the round trip (RFC 9438).

Windows are in octets here; the RFC's are in segments, so its constant C is multiplied by the
segment size.
"""

from __future__ import annotations

from .congestion import Congestion

__all__ = ["Cubic"]

BETA = 0.7  # RFC 9438 4.6
C = 0.4  # RFC 9438 5.1, segments per cubic second
ALPHA = 3 * (1 - BETA) / (1 + BETA)  # RFC 9438 4.3


class Cubic(Congestion):
    """RFC 9438, with HyStart++ in front of it."""

    __slots__ = (
        "_acked_at",
        "_cwnd_prior",
        "_epoch_at",
        "_k",
        "_prior_curve",
        "_w_est",
        "_w_max",
    )

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._w_max = 0.0
        self._cwnd_prior = 0.0
        self._k = 0.0
        self._w_est = 0.0
        self._epoch_at = -1.0  # -1: the next ACK in congestion avoidance begins an epoch
        self._acked_at = 0.0
        self._prior_curve = (0.0, 0.0, 0.0, 0.0, -1.0)

    def avoid(self, octets: int, srtt: float, now: float) -> None:
        """Follow the curve, or Reno's estimate where that grows faster."""
        cwnd = float(self.cwnd)
        scale = C * self.mss
        if self._epoch_at < 0:
            self._epoch_at = now
            self._w_est = cwnd
            if self._w_max > cwnd:
                self._k = ((self._w_max - cwnd) / scale) ** (1 / 3)
            else:
                self._k = 0.0
                self._w_max = cwnd
        elif now - self._acked_at > 2 * srtt:
            # We are only told while the window is in full use.  Time in which it was not must not
            # make it grow (RFC 9438 4.2).
            self._epoch_at += now - self._acked_at - srtt
        self._acked_at = now
        elapsed = now - self._epoch_at
        alpha = ALPHA if self._w_est < self._cwnd_prior else 1.0
        self._w_est += alpha * self.mss * octets / cwnd
        if scale * (elapsed - self._k) ** 3 + self._w_max < self._w_est:
            self.cwnd = max(self.cwnd, int(self._w_est))
            return
        target = scale * (elapsed + srtt - self._k) ** 3 + self._w_max
        target = min(max(target, cwnd), 1.5 * cwnd)
        # At least an octet, so that many small ACKs are not all rounded away.
        self.cwnd += max(int((target - cwnd) * octets / cwnd), 1)

    def reduced(self, flight_size: int, now: float) -> int:
        """Seven tenths of what is outstanding (RFC 9438 4.6), converging fast (4.7)."""
        del now
        self._prior_curve = (
            self._w_max,
            self._cwnd_prior,
            self._k,
            self._w_est,
            self._epoch_at,
        )
        cwnd = float(self.cwnd)
        # Below the last maximum: somebody new is here, so leave some room.
        self._w_max = cwnd * (1 + BETA) / 2 if cwnd < self._w_max else cwnd
        self._cwnd_prior = cwnd
        self._epoch_at = -1.0
        return max(int(flight_size * BETA), 2 * self.mss)

    def timed_out(self, flight_size: int, now: float) -> None:
        """As for a loss, but the curve starts flat where slow start ends (RFC 9438 4.8)."""
        super().timed_out(flight_size, now)
        self._w_max = 0.0

    def restart(self) -> None:
        """After silence the old curve means nothing."""
        super().restart()
        self._epoch_at = -1.0

    def undo(self) -> None:
        """Back to the old curve, too (RFC 9438 4.9)."""
        if self._prior is not None:
            (
                self._w_max,
                self._cwnd_prior,
                self._k,
                self._w_est,
                self._epoch_at,
            ) = self._prior_curve
        super().undo()
