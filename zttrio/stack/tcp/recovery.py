"""What acknowledgements mean: the way into recovery, through it and out of it, or back.

Loss detection is RACK (see `rack`) where the peer sends SACK blocks, and NewReno (RFC 6582) where
it does not; the rate during recovery is PRR's (RFC 6937); the last resort is the timer of RFC 6298.
What turns out to have been no loss is undone: F-RTO (RFC 5682), D-SACK (RFC 3708) and timestamps
(RFC 4015) tell.
"""

from __future__ import annotations

import errno
from math import ceil, inf
from typing import TYPE_CHECKING

from .rack import DUP_THRESH, NOISE, Rack
from .scoreboard import IN_FLIGHT, SACKED
from .seq import MASK, unwrap
from .tcb import LOSS, OPEN, RECOVERY

if TYPE_CHECKING:
    from zttrio.header.tcp import TcpHeader

__all__ = ["ORPHAN_RETRIES", "Recoverer"]

ORPHAN_RETRIES = 8  # Linux's tcp_orphan_retries: nobody is left to wait for the outcome


class Recoverer(Rack):
    """A sender that learns from acknowledgements."""

    __slots__ = ()

    def acknowledge(
        self,
        ack: int,
        blocks: tuple[tuple[int, int], ...],
        dsack: tuple[int, int] | None,
        echo: int | None,
        is_duplicate: bool,
        now: float,
    ) -> None:
        """Learn from one acceptable ACK.

        Args:
            ack: unwrapped, from `snd_una` to `snd_nxt`.
            blocks: unwrapped SACK blocks, in any order.
            dsack: a range that arrived more than once.
            echo: TSecr, if the segment had a timestamp.
            is_duplicate: RFC 5681 section 2 calls it a duplicate, without SACK blocks.
            now: the time.
        """
        board = self.board
        acked = ack - self.snd_una
        flight = self.snd_nxt - self.snd_una
        patience = inf
        if self.loss_state == OPEN and not board.retransmitted_out:
            board.begin_ack(inf)
        else:
            patience = self._trust_before(now)
            board.begin_ack(patience if echo is None else min(patience, self._after(echo, now)))
        delivered = 0
        if acked:
            delivered = board.acknowledge(ack)
            queue = self.send_queue
            if queue is not None:
                queue.acknowledge(min(ack, self.write_end))
            self.snd_una = ack
            self.retries = 0
            self.soft_error = 0
            self.progress_at = now
        if blocks:
            # What arrives out of order changes no timestamp that is echoed (RFC 7323 4.3), so the
            # echo tells nothing about it.
            board.trust_before = patience
            for left, right in sorted(blocks):
                delivered += board.sack(left, right)
        rtt = self._measure(acked, flight, echo, now) if delivered else 0.0
        if self.tail_end >= 0 and self.check_tail_probe(ack, dsack, is_bare=is_duplicate):
            # RFC 8985 7.4.2: the probe has repaired a loss, which was a sign like any other.
            self.congestion.congested(max(flight, self.max_flight), now)
            self.congestion.cwnd = self.congestion.ssthresh
        if dsack is not None:
            self.widen_reorder_window()
            self._note_needless(dsack)
        if self.loss_state == OPEN and not board.sacked and not is_duplicate and not self.dupacks:
            # Nothing is missing: what nearly every ACK finds.
            if acked:
                if self.is_window_used():
                    self.congestion.acked(acked, rtt, self.rtt.srtt, ack, self.snd_nxt, now)
                if self.mtu_search is not None:
                    self.check_mtu_probe(now)
        else:
            self._repair(acked, delivered, flight, rtt, echo, is_duplicate, now)
        if acked:
            if board.pieces:
                self.rto_at = self.bounded_timeout(now)
                self.arm(self.rto_at)
                self.schedule_tail_probe(now)
            else:
                self.rto_at = self.reorder_at = self.tail_at = inf
        elif board.sacked:
            self.tail_at = inf

    def check_blocks(
        self, header: TcpHeader, ack: int
    ) -> tuple[tuple[tuple[int, int], ...], tuple[int, int] | None]:
        """The SACK blocks that can be true, unwrapped; and the D-SACK block (RFC 2883), if any."""
        blocks: list[tuple[int, int]] = []
        dsack: tuple[int, int] | None = None
        low = max(ack, self.snd_una)
        for left32, right32 in header.sack_blocks:
            left = unwrap(left32, self.snd_una)
            right = unwrap(right32, self.snd_una)
            if not left < right <= self.snd_nxt:
                self.layer.counters.tcp_bad_sack += 1
            elif low <= left:
                blocks.append((left, right))
            elif right <= ack:
                dsack = (left, right)
        if len(blocks) > 1 and blocks[1][0] <= blocks[0][0] and blocks[0][1] <= blocks[1][1]:
            dsack = blocks[0]  # RFC 2883 section 4: the first block lies inside the second
        return tuple(blocks), dsack

    def _trust_before(self, now: float) -> float:
        """Pieces sent again since then were acknowledged for an earlier transmission.

        RFC 8985 6.2 step 2: an ACK cannot come in less than the shortest round trip ever seen.
        """
        return now - self.rtt.min_rtt + NOISE if self.rtt.min_rtt < inf else inf

    def _after(self, echo: int, now: float) -> float:
        """Nor does an ACK echo a timestamp older than what it acknowledges."""
        return self._echoed_time(echo, now) + 0.001 + self.repair_lag()

    def _echoed_time(self, echo: int, now: float) -> float:
        """When the segment went out whose timestamp comes back, rounded down to a millisecond."""
        age = (self.timestamp(now) - echo) & MASK
        return (int(now * 1000) - age) / 1000

    def _measure(self, acked: int, flight: int, echo: int | None, now: float) -> float:
        """Take a round-trip sample if there is one, and return it; advance RACK."""
        board = self.board
        sample = 0.0
        if acked:
            if not board.is_ambiguous:
                sample = now - board.oldest_at
                self.rtt.sample(sample, now, max(1, flight // max(acked, 2 * self.mss)))
            elif (
                echo is not None
                and board.newest_is_retransmitted
                and board.newest_at < self._after(echo, now)
            ):
                # Karn's problem, which of the two was acknowledged, solved by the timestamp: it is
                # not older than the repetition (or `newest_at` would be that of another piece).
                sample = now - board.newest_at
                self.rtt.sample(sample, now)
        self.advance_rack(now)
        return sample

    def _repair(
        self,
        acked: int,
        delivered: int,
        flight: int,
        rtt: float,
        echo: int | None,
        is_duplicate: bool,
        now: float,
    ) -> None:
        """Something is missing, or was: find losses, and set the pace of sending."""
        board = self.board
        congestion = self.congestion
        if not self.sack_ok:
            delivered = self._count_duplicate(acked, delivered, is_duplicate)
        if self.loss_state != OPEN:
            if self._is_needless(acked, echo, now):
                self._undo()
                if board.original_end >= 0:
                    # The ACK was not for what was sent again, so neither are RACK's conclusions.
                    self.rack_at = board.oldest_at
                    self.rack_end = board.original_end
                    self.rack_rtt = now - board.oldest_at
            elif self.snd_una >= self.recover:
                self._end_recovery()
            elif self.loss_state == LOSS and self.frto_step:
                self._judge_timeout(acked, is_duplicate)
        if self.sack_ok:
            self.detect_losses(now)
        elif self.dupacks >= DUP_THRESH and self.loss_state == OPEN and not board.lost:
            # RFC 6582 3.2 step 2: duplicates of what an earlier recovery sent prove nothing.
            if self.snd_una > self.recover or not self.recover:
                board.mark_head_lost(self.mss)
        elif self.loss_state == RECOVERY and acked:
            board.mark_head_lost(self.mss)  # a partial ACK: the next one is missing, too
        is_probe = self.mtu_search is not None and self.check_mtu_probe(now)
        if self.loss_state == OPEN and board.lost and not is_probe:
            self._enter_recovery(flight, now)
        if self.loss_state == RECOVERY:
            self._pace(delivered)
        elif acked and (self.loss_state == LOSS or self.is_window_used()):
            congestion.acked(acked, rtt, self.rtt.srtt, self.snd_una, self.snd_nxt, now)
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

    # fast recovery

    def reorder_time_out(self, now: float) -> None:
        """What was only late has had its time: it is lost (RFC 8985 6.3)."""
        flight = self.snd_nxt - self.snd_una
        self.detect_losses(now)
        if self.board.lost:
            if self.loss_state == OPEN:
                self._enter_recovery(flight, now)
            if self.loss_state == RECOVERY:
                self._pace(0)
            self.mark_dirty()

    def _begin_repairs(self) -> None:
        """Remember what to go back to if none of this was needed."""
        self.undo_marker = self.snd_una
        self.undo_octets = self.board.retransmitted_out
        if not self.undo_octets:
            self.repair_at = -1.0  # or what an earlier recovery has sent again would look like luck
        self.tail_end = -1
        self.tail_at = inf

    def _enter_recovery(self, flight: int, now: float) -> None:
        self.layer.counters.tcp_recoveries += 1
        self._begin_repairs()
        self.congestion.congested(max(flight, self.max_flight), now)
        self.loss_state = RECOVERY
        self.recover = self.snd_nxt
        self.must_resend = True
        self.prr_flight = flight
        self.prr_delivered = 0
        self.prr_out = 0

    def _pace(self, delivered: int) -> None:
        """Set `cwnd` for this ACK so that sending follows delivery (RFC 6937 section 3)."""
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
            self.relax_reorder_window()
        self.loss_state = OPEN
        self.frto_step = 0
        self.dupacks = 0

    # the retransmission timer

    def slow_down(self, now: float) -> None:
        """The peer says that our packets were marked: as after a loss, once for each round trip.

        RFC 3168 6.1.2.  While losses are repaired we have slowed down already.
        """
        if self.snd_una < self.cwr_end or self.loss_state != OPEN:
            return
        self.layer.counters.tcp_marks_in += 1
        congestion = self.congestion
        congestion.congested(max(self.snd_nxt - self.snd_una, self.max_flight), now)
        congestion.cwnd = max(congestion.ssthresh, self.mss)
        self.cwr_end = self.snd_nxt
        self.cwr_pending = True

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
        self.suspect_black_hole(now)
        board = self.board
        if self.loss_state == OPEN:
            self._begin_repairs()
        if self.loss_state != LOSS:
            self.congestion.timed_out(max(self.snd_nxt - self.snd_una, self.max_flight), now)
            self.loss_state = LOSS
        else:
            # The retransmission was lost as well: RFC 5681 3.1 leaves ssthresh alone.
            self.congestion.cwnd = self.congestion.mss
        self.recover = self.snd_nxt
        self.dupacks = 0
        self.frto_step = 1
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
        self.rto_at = self.bounded_timeout(now)
        self.must_resend = True
        self.mark_dirty()

    def has_given_up(self, now: float) -> bool:
        """True if this has been tried often or long enough."""
        limit = self.layer.config.retries
        if self.is_orphan:
            limit = min(limit, ORPHAN_RETRIES)
        user_timeout = self.options.user_timeout
        if user_timeout:
            return now - self.progress_at >= user_timeout - NOISE  # RFC 5482
        return self.retries > limit

    def bounded_timeout(self, now: float) -> float:
        """When the retransmission (or persist) timer is due, no later than the user timeout."""
        due = now + self.rtt.timeout()
        user_timeout = self.options.user_timeout
        if user_timeout:
            due = max(min(due, self.progress_at + user_timeout), now)
        return due

    # second thoughts

    def _is_needless(self, acked: int, echo: int | None, now: float) -> bool:
        """True if this ACK shows that what is being repaired had not been lost."""
        if self.undo_marker < 0:
            return False
        board = self.board
        if acked:
            if self.repair_at < 0:
                return True  # nothing has been sent again yet, and yet it arrived
            if (
                echo is not None
                and self._echoed_time(echo, now) < int(self.repair_at * 1000) / 1000 - NOISE
            ):
                # RFC 4015: it was set off by a segment from before the first repetition.
                return True
        # RFC 5682 2.1 step 3b: something arrived that was never sent again.  Without SACK, an ACK
        # that covers a repetition as well may have been set off by that.
        return (
            self.loss_state == LOSS
            and self.frto_step > 0
            and 0 <= board.original_end <= self.recover
            and (self.sack_ok or not board.is_ambiguous)
        )

    def _judge_timeout(self, acked: int, is_duplicate: bool) -> None:
        """RFC 5682 2.1 step 2: an ACK after a timeout, of repeated data only."""
        board = self.board
        may_send_new = self.write_end > self.snd_nxt and self.snd_una + self.snd_wnd > self.snd_nxt
        if self.frto_step == 1 and acked and not is_duplicate and may_send_new and board.lost:
            self.frto_step = 2  # `transmit` sends new data next; what comes back for it will tell
            return
        if self.frto_step == 2:
            # Step 3a: the new data is in the way of the repairs, so make room for one.
            self.congestion.cwnd = max(self.congestion.cwnd, 3 * self.mss)
        self.frto_step = 0

    def _note_needless(self, dsack: tuple[int, int]) -> None:
        """A D-SACK: something was sent twice for nothing (RFC 3708 section 3)."""
        self.layer.counters.tcp_needless += 1
        if self.undo_marker < 0 or self.repair_at < 0:
            return
        if not self.undo_marker <= dsack[0] < dsack[1] <= self.recover:
            return
        self.undo_octets -= dsack[1] - dsack[0]
        if self.undo_octets <= 0:
            self._undo()

    def _undo(self) -> None:
        """Nothing was lost: go back to before the repairs."""
        self.layer.counters.tcp_undone += 1
        self.undo_marker = -1
        self.congestion.undo()
        if self.loss_state != LOSS:
            # What looked lost was only late.  RFC 8985 6.2 step 3 sees that in pieces that were
            # never sent again, so a path whose every late piece is repaired at once would have
            # nobody look closer; Linux draws the same conclusion.
            self.is_reordering = True
        if self.loss_state != OPEN:
            self.board.unmark_lost()
            self.loss_state = OPEN
            self.frto_step = 0
            self.dupacks = 0
            self.rtt.backoff = 0
        self.mark_dirty()
