"""What acknowledgements mean: which pieces arrived, which are lost, and how fast to go on.

Loss detection is RACK (RFC 8985) where the peer sends SACK blocks, and NewReno (RFC 6582) where it
does not; the rate during recovery is PRR's (RFC 6937); the last resort is the timer of RFC 6298.
"""

from __future__ import annotations

import errno
from math import ceil, inf

from .scoreboard import IN_FLIGHT, SACKED
from .send import Sender
from .seq import MASK
from .tcb import LOSS, OPEN, RECOVERY

__all__ = ["Recoverer"]

DUP_THRESH = 3  # RFC 5681 3.2
ORPHAN_RETRIES = 8  # Linux's tcp_orphan_retries: nobody is left to wait for the outcome
NOISE = 1e-9  # two floats that were computed in different ways may differ by this


class Recoverer(Sender):
    """A sender that learns from acknowledgements."""

    __slots__ = ()

    def fail(self, error: int, now: float) -> None:
        """End the connection with *error*; see `connection`."""
        raise NotImplementedError

    def acknowledge(
        self,
        ack: int,
        blocks: tuple[tuple[int, int], ...],
        echo: int | None,
        is_duplicate: bool,
        now: float,
    ) -> None:
        """Learn from one acceptable ACK.

        Args:
            ack: unwrapped, from `snd_una` to `snd_nxt`.
            blocks: unwrapped SACK blocks, in any order.
            echo: TSecr, if the segment had a timestamp.
            is_duplicate: RFC 5681 section 2 calls it a duplicate.
            now: the time.
        """
        board = self.board
        acked = ack - self.snd_una
        flight = self.snd_nxt - self.snd_una
        if self.loss_state == OPEN and not board.retransmitted_out:
            board.begin_ack(inf)
        else:
            board.begin_ack(self._trust_before(echo, now))
        delivered = 0
        if acked:
            delivered = board.acknowledge(ack)
            queue = self.send_queue
            if queue is not None:
                queue.acknowledge(min(ack, self.write_end))
            self.snd_una = ack
            self.retries = 0
            self.soft_error = 0
        if blocks:
            for left, right in sorted(blocks):
                delivered += board.sack(left, right)
        if delivered:
            self._measure(acked, flight, echo, now)
        if self.loss_state == OPEN and not board.sacked and not is_duplicate and not self.dupacks:
            # Nothing is missing: what nearly every ACK finds.
            if acked and self.is_window_used():
                self.congestion.acked(acked, self.rtt.latest, self.rtt.srtt, now)
        else:
            self._repair(acked, delivered, flight, is_duplicate, now)
        if acked:
            if board.pieces:
                self.rto_at = now + self.rtt.timeout()
                self.arm(self.rto_at)
            else:
                self.rto_at = self.reorder_at = inf

    def _trust_before(self, echo: int | None, now: float) -> float:
        """Pieces sent again since then were acknowledged for an earlier transmission.

        RFC 8985 6.2 step 2: an ACK cannot come in less than the shortest round trip ever seen, nor
        echo a timestamp older than what it acknowledges.
        """
        limit = now - self.rtt.min_rtt + NOISE if self.rtt.min_rtt < inf else inf
        if echo is not None:
            # TSval was the time in whole milliseconds.
            age = (self.timestamp(now) - echo) & MASK
            limit = min(limit, (int(now * 1000) - age + 1) / 1000)
        return limit

    def _measure(self, acked: int, flight: int, echo: int | None, now: float) -> None:
        """Take a round-trip sample, and advance RACK."""
        board = self.board
        at = board.newest_at
        if not acked:
            pass
        elif not board.is_ambiguous:
            self.rtt.sample(
                now - board.oldest_at, now, max(1, flight // max(acked, 2 * self.mss))
            )
        elif echo is not None and board.newest_is_retransmitted:
            # Karn's problem, which of the two was acknowledged, solved by the timestamp: it is not
            # older than the retransmission (or `newest_at` would be that of another piece).
            self.rtt.sample(now - at, now)
        end = board.newest_end
        if at > self.rack_at or (at == self.rack_at and end > self.rack_end):
            self.rack_at = at
            self.rack_end = end
            self.rack_rtt = now - at
        if board.reordered is not None:
            self.is_reordering = True

    def _repair(
        self, acked: int, delivered: int, flight: int, is_duplicate: bool, now: float
    ) -> None:
        """Something is missing, or was: find losses, and set the pace of sending."""
        board = self.board
        congestion = self.congestion
        if not self.sack_ok:
            delivered = self._count_duplicate(acked, delivered, is_duplicate)
        if self.loss_state != OPEN and self.snd_una >= self.recover:
            self._end_recovery()
        if self.sack_ok:
            self.detect_losses(now)
        elif self.dupacks >= DUP_THRESH and self.loss_state == OPEN and not board.lost:
            # RFC 6582 3.2 step 2: duplicates of what an earlier recovery sent prove nothing.
            if self.snd_una > self.recover or not self.recover:
                board.mark_head_lost(self.mss)
        elif self.loss_state == RECOVERY and acked:
            board.mark_head_lost(self.mss)  # a partial ACK: the next one is missing, too
        if self.loss_state == OPEN:
            if board.lost:
                self._enter_recovery(flight, now)
                self._pace(delivered, now)
            elif acked and self.is_window_used():
                congestion.acked(acked, self.rtt.latest, self.rtt.srtt, now)
        elif self.loss_state == RECOVERY:
            self._pace(delivered, now)
        elif acked:
            congestion.acked(acked, self.rtt.latest, self.rtt.srtt, now)
        self.mark_dirty()

    def _count_duplicate(self, acked: int, delivered: int, is_duplicate: bool) -> int:
        """Keep the count of duplicate ACKs; return the octets that this ACK delivered.

        A duplicate stands for one segment, and an ACK that advances takes back what the duplicates
        before it stood for.
        """
        mss = self.mss
        if self.loss_state == LOSS:
            return delivered  # what was sent again arrives twice: duplicates mean nothing now
        if is_duplicate:
            if self.snd_nxt - self.snd_una > self.dupacks * mss:
                self.dupacks += 1
                return mss
            return 0
        if acked and self.dupacks:
            if self.loss_state == RECOVERY and self.snd_una < self.recover:
                counted = min(self.dupacks, max(acked // mss - 1, 0))
                self.dupacks -= counted
                return max(delivered - counted * mss, 0)
            self.dupacks = 0
        return delivered

    # RACK

    def detect_losses(self, now: float) -> None:
        """Mark what was sent so long before something delivered that it must be lost (RFC 8985)."""
        board = self.board
        self.reorder_at = inf
        if self.rack_at < 0 or not board.pieces:
            return
        patience = self.rack_rtt + self.reorder_window()
        latest = -inf
        for piece in board.sent_before(self.rack_at, self.rack_end):
            due = piece.sent_at + patience
            if due <= now + NOISE:
                board.mark_lost(piece)
            else:
                latest = max(latest, due)
        if latest > -inf:
            self.reorder_at = latest
            self.arm(latest)

    def reorder_time_out(self, now: float) -> None:
        """What was only late has had its time: it is lost (RFC 8985 6.2 step 5)."""
        flight = self.snd_nxt - self.snd_una
        self.detect_losses(now)
        if self.board.lost:
            if self.loss_state == OPEN:
                self._enter_recovery(flight, now)
            if self.loss_state == RECOVERY:
                self._pace(0, now)
            self.mark_dirty()

    def reorder_window(self) -> float:
        """How long to wait for what may only be late (RFC 8985 6.2 step 4)."""
        if not self.is_reordering and (
            self.loss_state != OPEN or self.board.sacked_segments >= DUP_THRESH
        ):
            return 0.0
        if self.rtt.min_rtt == inf:
            return 0.0
        return min(self.reorder_mult * self.rtt.min_rtt / 4, self.rtt.srtt)

    # fast recovery

    def _enter_recovery(self, flight: int, now: float) -> None:
        self.layer.counters.tcp_recoveries += 1
        self.congestion.congested(flight, now)
        self.loss_state = RECOVERY
        self.recover = self.snd_nxt
        self.must_resend = True
        self.prr_flight = flight
        self.prr_delivered = 0
        self.prr_out = 0

    def _pace(self, delivered: int, now: float) -> None:
        """Set `cwnd` for this ACK so that sending follows delivery (RFC 6937 section 3)."""
        del now
        congestion = self.congestion
        pipe = self.pipe()
        ssthresh = congestion.ssthresh
        self.prr_delivered += delivered
        if pipe > ssthresh:
            quota = ceil(self.prr_delivered * ssthresh / self.prr_flight) - self.prr_out
        else:
            # Slow-start reduction bound: catch up, but never in a burst.
            quota = max(self.prr_delivered - self.prr_out, delivered) + self.mss
            quota = min(quota, ssthresh - pipe)
        if quota <= 0 and not self.prr_out:
            quota = self.mss  # the fast retransmission itself
        congestion.cwnd = pipe + max(quota, 0)

    def _end_recovery(self) -> None:
        if self.loss_state == RECOVERY:
            self.congestion.cwnd = self.congestion.ssthresh
        self.loss_state = OPEN
        self.dupacks = 0

    # the retransmission timer

    def time_out(self, now: float) -> None:
        """The retransmission timer fired: the last resort (RFC 6298 section 5)."""
        if self.snd_wnd or now - self.received_at > self.rtt.timeout():
            self.retries += 1
        else:
            self.retries = 0  # the window was closed on data in flight, and the peer lives
        if self.has_given_up(now):
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
            return
        self.layer.counters.tcp_timeouts += 1
        board = self.board
        if self.loss_state != LOSS:
            self.congestion.timed_out(self.snd_nxt - self.snd_una, now)
            self.loss_state = LOSS
        else:
            # The retransmission was lost as well: RFC 5681 3.1 leaves ssthresh alone.
            self.congestion.cwnd = self.congestion.mss
        self.recover = self.snd_nxt
        self.dupacks = 0
        if board.pieces[0].state == SACKED:
            # What is SACKed and first in line should have been acknowledged: the peer has thrown
            # it away (RFC 2018 section 8).
            self.layer.counters.tcp_reneged += 1
            board.forget_sacks()
        # RFC 8985 6.3: the first piece is lost, and those that had time to be acknowledged.
        patience = self.rack_rtt + self.reorder_window() if self.sack_ok else 0.0
        for index, piece in enumerate(board.pieces):
            if piece.state == IN_FLIGHT and (index == 0 or piece.sent_at + patience <= now + NOISE):
                board.mark_lost(piece)
        self.reorder_at = inf
        self.rtt.backoff += 1
        self.rto_at = now + self.rtt.timeout()
        self.must_resend = True
        self.mark_dirty()

    def has_given_up(self, now: float) -> bool:
        """True if this has been tried often enough."""
        del now
        limit = self.layer.config.retries
        if self.is_orphan:
            limit = min(limit, ORPHAN_RETRIES)
        return self.retries > limit
