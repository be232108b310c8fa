"""Turning what the program has given us into segments, when the rules allow it.

Knows windows, Nagle's algorithm, the silly-window rules, super-segments and the layout of a segment
on its way out.  Does not know why something is lost; `recovery` says what to send again.
"""

from __future__ import annotations

import struct
from math import inf
from typing import TYPE_CHECKING

from zttrio.header.checksum import fold, pseudo_header, sum_of
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL
from zttrio.header.ipv4 import PROTOCOL_TCP
from zttrio.header.tcp import ACK, FIN, PSH, RST, TcpHeader

from .seq import MASK
from .state import SENDS_DATA
from .tcb import RECOVERY, Tcb

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["MIN_MSS", "Sender"]

_PLAIN = struct.Struct("!HHIIHHHH")
_STAMPED = struct.Struct("!HHIIHHHHIII")
_STAMP_WORD = 0x0101080A  # NOP NOP timestamp, length 10 (RFC 7323 appendix A)
STAMP_SIZE = 12

MIN_MSS = 48  # Linux's tcp_min_snd_mss: a peer that wants less wants us to drown in headers
OVERRIDE = 0.2  # RFC 9293 3.8.6.2.1: 0.1 to 1 s before a small segment goes out anyway
CHALLENGE_INTERVAL = 0.5  # Linux's tcp_invalid_ratelimit


class Sender(Tcb):
    """The half of a connection that sends."""

    __slots__ = ()

    # the path

    def measure_path(self) -> None:
        """Ask the IP layer what the path takes, and size segments accordingly."""
        ip = self.layer.ip
        destination = self.remote[0]
        self.path_mtu = ip.path_mtu(destination)
        self.needs_checksum = ip.needs_checksum(destination)
        self.pseudo_sum = pseudo_header(self.local[0], destination, PROTOCOL_TCP, 0)
        headers = 40 if len(destination) == 4 else 60
        mss = min(self.peer_mss, self.path_mtu - headers)
        if self.options.max_segment:
            mss = min(mss, self.options.max_segment)
        mss = max(mss, MIN_MSS) - (STAMP_SIZE if self.ts_ok else 0)
        limit = min(ip.max_segment(destination), 0xFFFF - headers - STAMP_SIZE)
        self.segment_limit = max(limit - limit % mss, mss)
        if mss != self.mss:
            self.mss = mss
            self.congestion.change_mss(mss)

    # one segment

    def receive_window(self) -> int:
        """The window field's value; moves our right edge if that is worth the peer's while."""
        queue = self.receive_queue
        edge = self.rcv_nxt + self.rcv_buffer - (0 if queue is None else queue.size)
        gain = edge - self.rcv_adv
        # RFC 9293 3.8.6.2.2: no window that opens by less than a segment, lest it turn silly.
        if gain > 0 and (gain >= self.rcv_mss or gain >= self.rcv_buffer >> 1):
            most = self.rcv_nxt + (0xFFFF << self.rcv_scale)
            self.rcv_adv = edge if edge < most else max(most, self.rcv_adv)
        # Rounding down takes back less than one unit of scale; we accept data up to `rcv_adv` all
        # the same (RFC 7323 2.4).
        return min((self.rcv_adv - self.rcv_nxt) >> self.rcv_scale, 0xFFFF)

    def emit(self, seq: int, flags: int, payload: Buffer, now: float, gso_size: int = 0) -> None:
        """Send one segment (or super-segment) with everything we have to say on it."""
        queue = self.receive_queue
        if queue is not None and self.sack_ok and queue.has_report():
            self._emit_with_sack(seq, flags, payload, now, gso_size)
            return
        window = self.receive_window()
        layer = self.layer
        ack = self.rcv_nxt & MASK
        seq &= MASK
        src_port = self.local[1]
        dst_port = self.remote[1]
        stamp = 0
        if self.ts_ok:
            words = 0x8000 | flags
            stamp = (int(now * 1000) + self.ts_offset) & MASK
            length = len(payload) + 32
        else:
            words = 0x5000 | flags
            length = len(payload) + 20
        if gso_size or not self.needs_checksum:
            state = CHECKSUM_PARTIAL
            check = fold(self.pseudo_sum + length)
        else:
            # Modulo 65535 a 32-bit field is the sum of its halves: no need to pack twice.
            state = CHECKSUM_COMPLETE
            total = self.pseudo_sum + length + src_port + dst_port + seq + ack + words + window
            if self.ts_ok:
                total += _STAMP_WORD + stamp + self.ts_recent
            if payload:
                total += sum_of(payload)
            check = fold(total) ^ 0xFFFF
        if self.ts_ok:
            header = _STAMPED.pack(
                src_port, dst_port, seq, ack, words, window, check, 0,
                _STAMP_WORD, stamp, self.ts_recent,
            )  # fmt: skip
        else:
            header = _PLAIN.pack(src_port, dst_port, seq, ack, words, window, check, 0)
        self.last_ack_sent = self.rcv_nxt
        self.ack_octets = 0
        self.ack_now = False
        self.ack_at = inf
        layer.counters.tcp_out += 1
        layer.ip.send(
            self.local[0],
            self.remote[0],
            PROTOCOL_TCP,
            header,
            payload,
            now,
            checksum=state,
            gso_size=gso_size,
            hop_limit=self.options.hop_limit,
            traffic_class=self.options.traffic_class & 0xFC,
        )

    def _emit_with_sack(
        self, seq: int, flags: int, payload: Buffer, now: float, gso_size: int
    ) -> None:
        """`emit`, with as many SACK blocks as there is room for."""
        room = 40 - (STAMP_SIZE if self.ts_ok else 0)
        if payload:
            # Full segments leave no room: MSS was computed without SACK blocks (RFC 6691).
            room = min(room, self.mss - len(payload) if not gso_size else 0)
        limit = min((room - 4) // 8, 4)
        blocks: tuple[tuple[int, int], ...] = ()
        if limit > 0 and self.receive_queue is not None:
            blocks = tuple(
                (left & MASK, right & MASK) for left, right in self.receive_queue.sack_blocks(limit)
            )
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            seq & MASK,
            self.rcv_nxt & MASK,
            flags,
            self.receive_window(),
            sack_blocks=blocks,
            timestamp=(self.timestamp(now), self.ts_recent) if self.ts_ok else None,
        )
        self.last_ack_sent = self.rcv_nxt
        self.ack_octets = 0
        self.ack_now = False
        self.ack_at = inf
        self.layer.send_header(
            self.local[0],
            self.remote[0],
            header,
            now,
            payload,
            gso_size=gso_size,
            hop_limit=self.options.hop_limit,
            traffic_class=self.options.traffic_class & 0xFC,
        )

    def timestamp(self, now: float) -> int:
        """Our TSval at *now*: milliseconds (RFC 7323 5.4), from an offset that is hard to guess."""
        return (int(now * 1000) + self.ts_offset) & MASK

    def send_ack(self, now: float) -> None:
        """Send a segment without data that says where we are."""
        self.emit(self.snd_nxt, ACK, b"", now)

    def send_challenge(self, now: float) -> None:
        """Answer something unacceptable with an ACK, but not too often (RFC 5961 sections 5, 7)."""
        if now - self.challenged_at < CHALLENGE_INTERVAL or not self.layer.may_challenge(now):
            self.layer.counters.tcp_challenges_limited += 1
            return
        self.challenged_at = now
        self.layer.counters.tcp_challenges_out += 1
        self.send_ack(now)

    def send_reset(self, now: float) -> None:
        """Tell the peer that this connection is no more."""
        self.layer.counters.tcp_resets_out += 1
        self.emit(self.snd_nxt, RST | ACK, b"", now)

    # data

    def bounded_timeout(self, now: float) -> float:
        """When the retransmission timer is due; see `recovery`."""
        raise NotImplementedError

    def schedule_tail_probe(self, now: float) -> None:
        """Arm the tail loss probe; see `rack`."""
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
            size = min(available, usable, self.segment_limit)
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
            count += 1
        if count:
            self.must_resend = False
            self.last_sent_at = now
            self.is_interactive = now - self.data_at < self.layer.config.delayed_ack
            self.persist_at = inf
            if self.rto_at == inf:
                self.rto_at = self.bounded_timeout(now)
                self.arm(self.rto_at)
            if self.tail_at == inf:
                self.schedule_tail_probe(now)
            self._note_usage(is_limited)
        elif is_limited:
            self._note_usage(True)
        if not board.pieces and self.persist_at == inf and self._is_held_back():
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
        payload: Buffer = b""
        if size and self.send_queue is not None:
            payload = self.send_queue.cut(seq, size)
        if flags & FIN:
            end += 1
        self.emit(seq, flags, payload, now, mss if size > mss else 0)
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
        self.undo_octets += size
        if self.repair_at < 0:
            self.repair_at = now
        self.layer.counters.tcp_retransmits += 1
        self.emit(start, flags, payload, now, mss if len(payload) > mss else 0)
        board.resend(piece, size, mss, now)
        if start == self.snd_una:
            # What the timer runs for has just been sent: as Linux, and RFC 6298 5.1 in spirit.
            self.rto_at = self.bounded_timeout(now)
            self.arm(self.rto_at)
        if self.loss_state == RECOVERY:
            self.prr_out += size

    def _note_usage(self, is_limited: bool) -> None:
        """Remember whether the congestion window was in full use (RFC 7661, after Linux)."""
        flight = self.snd_nxt - self.snd_una
        if is_limited or self.snd_una >= self.usage_end or flight > self.max_flight:
            self.is_cwnd_limited = is_limited
            self.max_flight = flight
            self.usage_end = self.snd_nxt

    def is_window_used(self) -> bool:
        """True if a larger congestion window would make a difference (RFC 7661 section 3)."""
        if self.is_cwnd_limited:
            return True
        congestion = self.congestion
        return congestion.cwnd < congestion.ssthresh and congestion.cwnd < 2 * self.max_flight

    # when nothing is in flight and nothing may go

    def _is_held_back(self) -> bool:
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
