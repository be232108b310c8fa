"""When data goes out: windows, Nagle's algorithm, the silly-window rules, super-segments, pacing.

Turns what the program has given us into segments, when the rules allow it.  Does not know why
something is lost; `recovery` says what to send again.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK, CWR, FIN, PSH

from .emit import ECT_0, Emitter
from .state import SENDS_DATA
from .tcb import RECOVERY

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["Sender"]

OVERRIDE = 0.2  # RFC 9293 3.8.6.2.1: 0.1 to 1 s before a small segment goes out anyway


class Sender(Emitter):
    """A connection that sends data."""

    __slots__ = ()

    def bounded_timeout(self, now: float) -> float:
        """When the retransmission timer is due; see `recovery`."""
        raise NotImplementedError

    def schedule_tail_probe(self, now: float) -> None:
        """Arm the tail loss probe; see `rack`."""
        raise NotImplementedError

    def probe_mtu(self, usable: int, now: float) -> bool:
        """Send a larger segment than usual to see whether it arrives; see `sizing`."""
        raise NotImplementedError

    def transmit(self, now: float, room: int) -> int:
        """Send what may be sent now, at most *room* segments; return how many went out."""
        if self.state not in SENDS_DATA:
            return 0
        board = self.board
        congestion = self.congestion
        if not board.pieces and now - self.last_sent_at > self.rtt.rto and self.last_sent_at:
            congestion.restart()
        if not board.pieces and self.persist_at == inf:
            self.progress_at = now
        mss = self.mss
        limit = self.segment_limit
        rate = congestion.pacing_rate(self.rtt.srtt) if congestion.is_paced else 0.0
        count = 0
        is_limited = False
        while count < room:
            quota = congestion.cwnd - self.pipe()
            if board.lost and self.frto_step != 2:
                if quota < mss and not self.must_resend:
                    is_limited = True
                    break
                self._resend(quota, now)
                count += 1
                continue
            seq = self.snd_nxt
            available = self.write_end - seq
            if available < 0 or (available == 0 and not self.fin_queued):
                break  # everything is out, FIN included
            usable = self.snd_una + self.snd_wnd - seq
            if usable <= 0:
                break
            if available == 0:
                self._send_new(seq, 0, now)
                count += 1
                continue
            if self.mtu_search is not None and quota >= mss and self.probe_mtu(usable, now):
                count += 1
                continue
            if now < self.pace_at:
                break
            # As much as may go in one run; only a paced sender looks up after each segment.
            size = min(available, usable, limit if rate else limit * (room - count))
            if size > quota:
                is_limited = True
                size = quota - quota % mss
                if size <= 0:
                    if board.pieces:
                        break
                    size = min(available, usable, mss)  # nothing is in flight: one segment always
            rest = size % mss
            if rest and not self._may_send_small(size, rest, available, usable):
                size -= rest
                if size == 0:
                    break
            self._send_new(seq, size, now)
            count += -(-size // limit)
            if rate:
                # A fair share of lateness is made up for, or a coarse clock would halve the rate.
                self.pace_at = max(self.pace_at, now - 0.01) + size / rate
        if rate and self.pace_at > now and self.is_held_back():
            self.arm(self.pace_at)
        if count:
            self.must_resend = False
            self.last_sent_at = now
            self.is_interactive = now - self.data_at < self.layer.config.delayed_ack
            self.persist_at = inf
            if self.rto_at == inf:
                self.rto_at = self.bounded_timeout(now)
                self.arm(self.rto_at)
            self.schedule_tail_probe(now)
            self._note_usage(is_limited)
        elif is_limited:
            self._note_usage(True)
        if not board.pieces and self.persist_at == inf and self.is_held_back():
            self.persist_at = self._persist_due(now)
            self.arm(self.persist_at)
        return count

    def _may_send_small(self, size: int, rest: int, available: int, usable: int) -> bool:
        """May a segment of *rest* octets, less than a full one, go out at the end of *size*?"""
        if size == available:  # it would be the last of all there is
            if self.fin_queued or self.write_end <= self.pushed:
                return True
            options = self.options
            if options.cork:
                return False
            # Nagle, as Minshall modified it and Linux does it: wait only while an earlier small
            # segment is unacknowledged, so that a full segment's tail is never held back.
            return options.nodelay or self.small_end <= self.snd_una
        if size != usable:
            return True  # one segment into a tiny congestion window; see `transmit`
        # The peer's window cuts it: RFC 9293 3.8.6.2.1 rule (2).
        return size == rest and usable >= self.max_snd_wnd >> 1

    def _send_new(self, seq: int, size: int, now: float) -> None:
        """Send *size* octets that were never sent before, with the FIN if it is next."""
        end = seq + size
        flags = ACK
        if end == self.write_end:
            flags |= PSH
            if self.fin_queued and self.snd_una + self.snd_wnd > end:
                flags |= FIN
        mss = self.mss
        if size % mss:
            self.small_end = end
        ecn = 0
        if self.ecn_ok and size:
            ecn = ECT_0
            if self.cwr_pending:
                flags |= CWR
                self.cwr_pending = False
        if size and self.send_queue is not None:
            if size > self.segment_limit:
                self.emit_run(self.send_queue, seq, size, flags, now, ecn)
            else:
                payload = self.send_queue.cut(seq, size)
                self.emit(seq, flags, payload, now, mss if size > mss else 0, ecn)
        else:
            self.emit(seq, flags, b"", now)
        if flags & FIN:
            end += 1
        # One piece for all of it: a run leaves at one time, and is cut where an ACK cuts it.
        self.board.add(seq, end, mss, now)
        self.snd_nxt = end
        if self.loss_state == RECOVERY:
            self.prr_out += size

    def _resend(self, quota: int, now: float) -> None:
        """Send the first lost piece again, or as much of it as *quota* and a segment take."""
        board = self.board
        piece = board.next_lost()
        if piece is None:
            raise AssertionError(f"{board.lost} octets lost, but no piece is")
        mss = self.mss
        start = piece.start
        size = min(piece.end - start, self.segment_limit, max(quota - quota % mss, mss))
        end = start + size
        flags = ACK
        data_end = min(end, self.write_end)
        payload: Buffer = b""
        if data_end > start and self.send_queue is not None:
            payload = self.send_queue.cut(start, data_end - start)
        if end == self.snd_nxt:
            flags |= PSH
        if end > self.write_end:
            flags |= FIN
        self.must_resend = False
        self.resent += size
        self.undo_octets += size
        lag = self.repair_lag()
        if self.repair_at < 0:
            self.repair_at = now - lag
        self.layer.counters.tcp_retransmits += 1
        self.emit(start, flags, payload, now, mss if len(payload) > mss else 0, lag=lag)
        board.resend(piece, size, mss, now)
        if start == self.snd_una:
            # What the timer runs for has just been sent: as Linux, and RFC 6298 5.1 in spirit.
            self.rto_at = self.bounded_timeout(now)
            self.arm(self.rto_at)
        if self.loss_state == RECOVERY:
            self.prr_out += size

    def repair_lag(self) -> float:
        """How much older than now the timestamp is that a repair carries, in seconds.

        On a path that reorders, a repair overtakes segments that went out just before it.  Most
        peers would drop them when they come, because the repair's timestamp is newer (RFC 7323
        5.3), and each of these losses needs a repair again.  So it carries the time when the last
        of those went out that it should not overtake.  What came before the hole is older still.
        """
        if self.is_reordering and self.loss_state == RECOVERY and self.rtt.min_rtt < inf:
            return self.rtt.min_rtt / 4
        return 0.0

    def _note_usage(self, is_limited: bool) -> None:
        """Remember whether the congestion window was in full use (RFC 7661, after Linux)."""
        flight = self.snd_nxt - self.snd_una
        if is_limited or self.snd_una >= self.usage_end or flight > self.max_flight:
            self.is_cwnd_limited = is_limited
            self.max_flight = flight
            self.usage_end = self.snd_nxt

    def is_window_used(self) -> bool:
        """True if a larger congestion window would make a difference (RFC 7661 section 3)."""
        if self.snd_una < self.cwr_end:
            return False  # the window was reduced for an ECN mark in this round trip
        if self.is_cwnd_limited:
            return True
        congestion = self.congestion
        return congestion.cwnd < congestion.ssthresh and congestion.cwnd < 2 * self.max_flight

    # when nothing is in flight and nothing may go

    def is_held_back(self) -> bool:
        """True if there is something to send that no ACK will set free."""
        return self.write_end > self.snd_nxt or (self.fin_queued and self.write_end == self.snd_nxt)

    def _persist_due(self, now: float) -> float:
        if self.snd_wnd and not self.retries:
            return now + OVERRIDE  # a small segment, or a corked one: only its timer is missing
        return self.bounded_timeout(now)

    def probe_window(self, now: float) -> None:
        """The persist timer: ask a closed window, or override the small-segment rules."""
        usable = self.snd_una + self.snd_wnd - self.snd_nxt
        available = self.write_end - self.snd_nxt
        if usable > 0:
            self.pushed = self.write_end
            size = min(usable, available, self.mss)
            self._send_new(self.snd_nxt, size, now)
            self.last_sent_at = now
            self.rto_at = self.bounded_timeout(now)
            return
        self.rtt.backoff += 1
        self.layer.counters.tcp_window_probes += 1
        self.persist_at = self.bounded_timeout(now)
        # A segment without data, one number too low: it is not acceptable, so it is answered, and
        # the answer says how wide the window is.  RFC 9293 3.8.6.1 speaks of an octet of new data;
        # Linux sends what we send.  An octet beyond the window leaves both sides unsure whether it
        # was taken, and if both probe at once each may find the other's ACKs out of window.
        self.emit(self.snd_una - 1, ACK, b"", now)

    def mark_dirty(self) -> None:
        """List this connection for the next pump."""
        if not self.is_dirty:
            self.is_dirty = True
            self.layer.dirty.append(self)
