"""One segment on its way out: its layout, its size, its window, and what rides along.

Knows how to say things, not when: `send` decides about data, `receive` about ACKs.
"""

from __future__ import annotations

import struct
from math import inf
from typing import TYPE_CHECKING

from zttrio.header.checksum import fold, pseudo_header, sum_of
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL
from zttrio.header.ipv4 import PROTOCOL_TCP
from zttrio.header.tcp import ACK, CWR, ECE, FIN, PSH, RST, TcpHeader

from .seq import MASK
from .tcb import Tcb

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .sendqueue import SendQueue

__all__ = ["CHALLENGE_INTERVAL", "ECT_0", "MIN_MSS", "STAMP_SIZE", "Emitter"]

_PLAIN = struct.Struct("!HHIIHHHH")
_STAMPED = struct.Struct("!HHIIHHHHIII")
_STAMP_WORD = 0x0101080A  # NOP NOP timestamp, length 10 (RFC 7323 appendix A)
STAMP_SIZE = 12
MIN_MSS = 48  # Linux's tcp_min_snd_mss: a peer that wants less wants us to drown in headers
CHALLENGE_INTERVAL = 0.5  # Linux's tcp_invalid_ratelimit
ECT_0 = 2  # RFC 3168 section 5: this packet's transport understands marks


class Emitter(Tcb):
    """A connection that can put segments on the wire."""

    __slots__ = ()

    def options_size(self) -> int:
        """Octets of TCP options on every segment."""
        return STAMP_SIZE if self.ts_ok else 0

    def headers_size(self) -> int:
        """Octets of IP and TCP header in front of a full segment, options included."""
        return (40 if len(self.remote[0]) == 4 else 60) + self.options_size()

    def measure_path(self) -> None:
        """Ask the IP layer what the path takes, and size segments accordingly."""
        ip = self.layer.ip
        destination = self.remote[0]
        self.path_mtu = ip.segment_mtu(destination)
        if self.mtu_search is not None:
            self.path_mtu = min(self.path_mtu, self.mtu_search.low)
        self.needs_checksum = ip.needs_checksum(destination)
        self.pseudo_sum = pseudo_header(self.local[0], destination, PROTOCOL_TCP, 0)
        mss = min(self.peer_mss, self.path_mtu - (40 if len(destination) == 4 else 60))
        if self.options.max_segment:
            mss = min(mss, self.options.max_segment)
        mss = max(mss, MIN_MSS) - self.options_size()
        limit = ip.max_segment(destination)
        self.segment_limit = max(limit - limit % mss, mss)
        if mss != self.mss:
            self.mss = mss
            self.congestion.change_mss(mss)

    def receive_window(self) -> int:
        """The window field's value; moves our right edge if that is worth the peer's while."""
        queue = self.receive_queue
        rcv_nxt = self.rcv_nxt
        edge = rcv_nxt + self.rcv_buffer
        if queue is not None:
            edge -= queue.size
        gain = edge - self.rcv_adv
        # RFC 9293 3.8.6.2.2: no window that opens by less than a segment, lest it turn silly.
        if gain > 0 and (gain >= self.rcv_mss or gain >= self.rcv_buffer >> 1):
            most = rcv_nxt + (0xFFFF << self.rcv_scale)
            self.rcv_adv = edge if edge < most else max(most, self.rcv_adv)
        # Rounding down takes back less than one unit of scale; we accept data up to `rcv_adv` all
        # the same (RFC 7323 2.4).
        window = (self.rcv_adv - rcv_nxt) >> self.rcv_scale
        return min(65535, window)

    def emit(
        self,
        seq: int,
        flags: int,
        payload: Buffer,
        now: float,
        gso_size: int = 0,
        ecn: int = 0,
        lag: float = 0.0,
    ) -> None:
        """Send one segment (or super-segment) with everything we have to say on it.

        Args:
            seq: unwrapped.
            flags: the sum of ACK and so on.
            payload: immutable.
            now: the time.
            gso_size: not 0 for a super-segment.
            ecn: the two ECN bits of the packet.
            lag: seconds by which its timestamp is old; see `Sender.repair_lag`.
        """
        queue = self.receive_queue
        if queue is not None and self.sack_ok and (queue.ahead or queue.duplicate is not None):
            self._emit_with_sack(seq, flags, payload, now, gso_size, ecn, lag)
            return
        window = self.receive_window()
        if self.ecn_echo:
            flags |= ECE
        rcv_nxt = self.rcv_nxt
        ack = rcv_nxt & MASK
        seq &= MASK
        local, src_port = self.local
        remote, dst_port = self.remote
        if self.ts_ok:
            words = 0x8000 | flags
            stamp = (int((now - lag) * 1000) + self.ts_offset) & MASK
            echo = self.ts_recent
            length = len(payload) + 32
        else:
            words = 0x5000 | flags
            length = len(payload) + 20
            stamp = echo = 0
        if gso_size or not self.needs_checksum:
            state = CHECKSUM_PARTIAL
            check = (self.pseudo_sum + length) % 0xFFFF or 0xFFFF
        else:
            # Modulo 65535 a 32-bit field is the sum of its halves: no need to pack twice.
            state = CHECKSUM_COMPLETE
            total = self.pseudo_sum + length + src_port + dst_port + seq + ack + words + window
            if self.ts_ok:
                total += _STAMP_WORD + stamp + echo
            if payload:
                total += sum_of(payload)
            check = fold(total) ^ 0xFFFF
        if self.ts_ok:
            header = _STAMPED.pack(
                src_port, dst_port, seq, ack, words, window, check, 0, _STAMP_WORD, stamp, echo
            )
        else:
            header = _PLAIN.pack(src_port, dst_port, seq, ack, words, window, check, 0)
        self.last_ack_sent = rcv_nxt
        self.ack_octets = 0
        self.ack_now = self.is_ack_held = False
        self.ack_at = inf
        layer = self.layer
        layer.counters.tcp_out += 1
        options = self.options
        layer.ip.send(
            local,
            remote,
            PROTOCOL_TCP,
            header,
            payload,
            now,
            checksum=state,
            gso_size=gso_size,
            hop_limit=options.hop_limit,
            traffic_class=options.traffic_class & 0xFC | ecn,
        )

    def emit_run(
        self, queue: SendQueue, seq: int, size: int, flags: int, now: float, ecn: int
    ) -> None:
        """Send *size* octets as segments of `segment_limit`: `emit` many times, and faster.

        Args:
            queue: where the octets are.
            seq: of the first, unwrapped.
            size: how many; more than one segment takes.
            flags: PSH and FIN are for the last segment, CWR for the first.
            now: the time.
            ecn: the two ECN bits of the packets.
        """
        step = self.segment_limit
        mss = self.mss
        first_flags = flags & ~(PSH | FIN)
        reports = self.receive_queue
        if not self.ts_ok or (
            reports is not None
            and self.sack_ok
            and (reports.ahead or reports.duplicate is not None)
        ):
            while size:
                part = min(step, size)
                size -= part
                these = first_flags if size else first_flags | flags & (PSH | FIN)
                gso_size = mss if part > mss else 0
                self.emit(seq, these, queue.cut(seq, part), now, gso_size, ecn)
                first_flags &= ~CWR
                seq += part
            return
        window = self.receive_window()
        if self.ecn_echo:
            first_flags |= ECE
        words = 0x8000 | first_flags
        last_flags = flags & (PSH | FIN)
        ack = self.rcv_nxt & MASK
        local, src_port = self.local
        remote, dst_port = self.remote
        stamp = (int(now * 1000) + self.ts_offset) & MASK
        echo = self.ts_recent
        needs_checksum = self.needs_checksum and step <= mss
        state = CHECKSUM_COMPLETE if needs_checksum else CHECKSUM_PARTIAL
        pseudo = self.pseudo_sum + 32
        common = pseudo + src_port + dst_port + ack + window + _STAMP_WORD + stamp + echo
        options = self.options
        pack = _STAMPED.pack
        segments: list[tuple[bytes, Buffer]] = []
        left = size
        for payload in queue.cut_run(seq, size, step):
            part = len(payload)
            left -= part
            if not left:
                words |= last_flags
            number = seq & MASK
            if needs_checksum:
                check = fold(common + part + number + words + sum_of(payload)) ^ 0xFFFF
            else:
                check = (pseudo + part) % 0xFFFF or 0xFFFF
            header = pack(
                src_port, dst_port, number, ack, words, window, check, 0, _STAMP_WORD, stamp, echo
            )
            segments.append((header, payload))
            words &= ~CWR
            seq += part
        self.layer.ip.send_run(
            local,
            remote,
            PROTOCOL_TCP,
            segments,
            now,
            checksum=state,
            gso_size=mss,
            hop_limit=options.hop_limit,
            traffic_class=options.traffic_class & 0xFC | ecn,
        )
        self.layer.counters.tcp_out += -(-size // step)
        self.last_ack_sent = self.rcv_nxt
        self.ack_octets = 0
        self.ack_now = self.is_ack_held = False
        self.ack_at = inf

    def _emit_with_sack(
        self, seq: int, flags: int, payload: Buffer, now: float, gso_size: int, ecn: int, lag: float
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
            flags | ECE if self.ecn_echo else flags,
            self.receive_window(),
            sack_blocks=blocks,
            timestamp=(self.timestamp(now - lag), self.ts_recent) if self.ts_ok else None,
        )
        self.last_ack_sent = self.rcv_nxt
        self.ack_octets = 0
        self.ack_now = self.is_ack_held = False
        self.ack_at = inf
        self.layer.send_header(
            self.local[0],
            self.remote[0],
            header,
            now,
            payload,
            gso_size=gso_size,
            hop_limit=self.options.hop_limit,
            traffic_class=self.options.traffic_class & 0xFC | ecn,
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
