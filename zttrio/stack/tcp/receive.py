"""What arrives: the checks of RFC 9293 3.10.7 in their order, with RFC 5961's and RFC 7323's.

`receive_predicted` is the fast path (header prediction): an established connection, the next data
or the next ACK in order, and nothing unusual.  Everything else takes the complete way behind it,
`receive_segment`, and the two must agree.
"""

from __future__ import annotations

import errno
import struct
from math import inf
from typing import TYPE_CHECKING

from zttrio.header.checksum import sum_of
from zttrio.header.frame import CHECKSUM_COMPLETE
from zttrio.header.tcp import ACK, CWR, ECE, FIN, PSH, RST, SYN, TcpHeader
from zttrio.stack.events import RD, WR

from .acknowledge import Acknowledger
from .emit import CHALLENGE_INTERVAL
from .handshake import QUICK_ACKS
from .receivequeue import ReceiveQueue
from .seq import MASK, is_newer, unwrap
from .state import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    MAY_RECEIVE,
    SYN_RECEIVED,
    SYN_SENT,
)
from .tcb import OPEN

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Packet

__all__ = ["Receiver"]

_PLAIN = struct.Struct("!IIHHHH")  # from behind the ports
_STAMPED = struct.Struct("!IIHHHHIII")
_STAMP_WORD = 0x0101080A
_PREDICTED = 0xFFFF & ~PSH  # data offset and flags, of which only PSH may be or not be
STAMP_LIFETIME = 24 * 86400.0  # RFC 7323 5.5: an idle connection's timestamp is too old to judge by
LATE = 1.0  # arbitrary: whoever sends 4 GiB in a second needs better than PAWS
CE = 3  # RFC 3168 section 5: congestion experienced


class Receiver(Acknowledger):
    """A connection that can be fed segments."""

    __slots__ = ()

    def enter_time_wait(self, now: float) -> None:
        """Both directions are finished; see `connection`."""
        raise NotImplementedError

    def finish(self, now: float) -> None:
        """The last ACK has arrived; see `connection`."""
        raise NotImplementedError

    def receive_predicted(self, packet: Packet, transport: Buffer, now: float) -> bool:
        """Header prediction: take in a segment if it is what nearly every segment is.

        That is the next data in order, or an ACK of ours, on an established connection, with no
        option but the timestamp; its checksum is verified here.

        Args:
            packet: as the IP layer delivered it.
            transport: its first piece, at least the ports.
            now: the time.

        Returns:
            False if it is anything else, and nothing has happened.
        """
        size = len(transport)
        if self.ts_ok:
            if size < 32:
                return False
            seq, ack, words, window, _, _, word, stamp, echo = _STAMPED.unpack_from(transport, 4)
            if (
                words & _PREDICTED != 0x8010
                or word != _STAMP_WORD
                or (stamp - self.ts_recent) & 0x8000_0000
            ):
                return False
            offset = 32
        else:
            if size < 20:
                return False
            seq, ack, words, window, _, _ = _PLAIN.unpack_from(transport, 4)
            if words & _PREDICTED != 0x5010:
                return False
            stamp = 0
            echo = None
            offset = 20
        number = self.rcv_nxt
        if seq != number & MASK or self.state != ESTABLISHED:
            return False
        data = packet.payload
        if size > offset:
            if data:
                return False
            data = memoryview(transport)[offset:]
        length = len(data)
        una = self.snd_una
        ack = unwrap(ack, una)
        window <<= self.snd_scale
        queue = self.receive_queue
        if (
            ack < una
            or ack > self.snd_nxt
            or length > self.rcv_adv - number
            or (queue is not None and queue.ahead)
            or (length == 0 and (window == 0 or (ack == una and not self._is_mere_update(window))))
            or self.is_read_closed
            or self.fin_seq is not None
            or (self.ecn_ok and packet.traffic_class & 3 == CE)
        ):
            return False
        if packet.checksum == CHECKSUM_COMPLETE:
            total = self.pseudo_sum + offset + length + sum_of(transport)
            if size == offset and length:
                total += sum_of(data)
            if total % 0xFFFF:
                return False
        # From here on: the next segment in order, with an acceptable ACK.
        self.received_at = now
        if self.ts_ok and number == self.last_ack_sent:
            self.ts_recent = stamp
            self.ts_recent_at = now
        self.snd_wl1 = number
        self.snd_wl2 = ack
        if window != self.snd_wnd:
            self._change_window(window)
        if ack != una:
            self.acknowledge(ack, (), None, echo, False, now)
            self._after_ack()
        if length:
            if queue is None:
                queue = self.receive_queue = ReceiveQueue()
            queue.append(data)
            self.rcv_nxt = number + length
            self.note_data(length, packet.gso_size, now)
        return True

    def _is_mere_update(self, window: int) -> bool:
        """True if an ACK without data and without news says nothing but a new window."""
        return (
            window != self.snd_wnd
            and self.loss_state == OPEN
            and not self.board.sacked
            and not self.dupacks
            and self.tail_end < 0
            and self.persist_at == inf
        )

    def _change_window(self, window: int) -> None:
        """The peer announces another window."""
        if not self.snd_wnd and window:
            self.retries = 0
            self.rtt.backoff = 0
        if window > self.max_snd_wnd:
            self.max_snd_wnd = window
        self.snd_wnd = window
        if self.write_end > self.snd_nxt or self.fin_queued:
            self.mark_dirty()

    def _after_ack(self) -> None:
        """Octets of ours were acknowledged: there may be room to write, and a reason to send."""
        if 2 * self.congestion.cwnd > self.send_buffer:
            self.grow_send_buffer()
        if self.board.lost or self.is_held_back():
            self.mark_dirty()
        if self.wanted & WR and self.is_writable:
            self.layer.events.raise_event(self, WR)

    @property
    def is_writable(self) -> bool:
        """True if `send` would take a worthwhile amount, or raise at once; see `connection`."""
        raise NotImplementedError

    # the complete way

    def receive_segment(self, packet: Packet, header: TcpHeader, data: Buffer, now: float) -> None:
        """Take in any segment (or super-segment) whose checksum is right.

        Args:
            packet: as the IP layer delivered it.
            header: its TCP header.
            data: what follows that.
            now: the time.
        """
        self.received_at = now
        flags = header.flags
        if self.state == SYN_SENT:
            self._receive_in_syn_sent(packet, header, data, now)
            return
        seq = unwrap(header.seq, self.rcv_nxt)
        if self.state == SYN_RECEIVED and flags & SYN and seq == self.irs and not flags & RST:
            # The SYN again: either our answer was lost, or both sides have called at once and this
            # is the peer's answer (RFC 9293 3.5 figure 8).
            if not flags & ACK:
                self.send_syn(now)
                return
            seq += 1
            flags &= ~SYN
            self.schedule_ack()
        if not self._check_stamp(header, len(data), now):
            return
        if not self._check_sequence(flags, seq, len(data), now):
            return
        if flags & RST:
            self._receive_reset(seq, now)
            return
        if flags & SYN:
            self.send_challenge(now)  # RFC 5961 section 4: whatever its number
            return
        if not flags & ACK:
            self.layer.counters.tcp_no_ack += 1
            return
        if not self._receive_ack(packet, header, seq, len(data), now):
            return
        # Urgent data is in-line data (RFC 6093 section 6): the pointer is not looked at.
        if data or flags & FIN:
            self._receive_text(seq, data, bool(flags & FIN), packet.gso_size, now)

    def _note_marks(self, packet: Packet, flags: int, now: float) -> None:
        """RFC 3168 6.1.3: echo marks until the peer says that it has slowed down; and do so."""
        if flags & CWR:
            self.ecn_echo = False
        if packet.traffic_class & 3 == CE:
            self.ecn_echo = True
            self.schedule_ack()
        if flags & ECE:
            self.slow_down(now)

    def _check_stamp(self, header: TcpHeader, size: int, now: float) -> bool:
        """RFC 7323 5.3 R1: a segment with an old timestamp is an old segment (PAWS)."""
        if not self.ts_ok or header.flags & RST:
            return True  # RFC 7323 5.2: resets are judged by their number alone
        stamp = header.timestamp
        if stamp is None:
            self.layer.counters.tcp_no_timestamp += 1
            return False  # RFC 7323 3.2: not from a peer that has agreed to send them
        if self._is_stale(stamp[0], now) and not self._is_late(header, size, stamp[0]):
            self.layer.counters.tcp_paws += 1
            self.send_challenge(now)
            return False
        return True

    def _is_stale(self, stamp: int, now: float) -> bool:
        return is_newer(self.ts_recent, stamp) and now - self.ts_recent_at <= STAMP_LIFETIME

    def _is_late(self, header: TcpHeader, size: int, stamp: int) -> bool:
        """True for a segment that others have overtaken on the way.

        RFC 7323 5.3 drops data of which a later repetition of what was missing has arrived first.
        On a path that reorders that makes a loss of every late segment behind a repair, and so the
        next repair.  But what is only a moment old is not from an earlier lap of the numbers.
        Bare ACKs that say nothing new Linux spares, too: their SACK blocks matter.
        """
        # In what is probably milliseconds: as late as a packet may be that is not lost.
        if (self.ts_recent - stamp) & MASK > min(self.rtt.rto, LATE) * 1000:
            return False
        return size > 0 or (
            header.flags & ~PSH == ACK
            and header.seq == self.rcv_nxt & MASK
            and header.ack == self.snd_una & MASK
            and header.window << self.snd_scale == self.snd_wnd
        )

    def _note_stamp(self, header: TcpHeader, seq: int, now: float) -> None:
        """RFC 7323 4.3: what we echo is from the segment that our last ACK stopped in front of."""
        stamp = header.timestamp
        if (
            self.ts_ok
            and stamp is not None
            and seq <= self.last_ack_sent
            and not self._is_stale(stamp[0], now)
        ):
            self.ts_recent = stamp[0]
            self.ts_recent_at = now

    def _check_sequence(self, flags: int, seq: int, size: int, now: float) -> bool:
        """RFC 9293 3.10.7.4, first: is any of this inside the window?"""
        rcv_nxt = self.rcv_nxt
        length = size + (flags & FIN) + (flags >> 1 & 1)
        if length == 0:
            # One octet more than RFC 9293 3.4 allows: the ACKs of a peer that has filled the
            # window carry its right edge as sequence number, and matter.
            if rcv_nxt <= seq <= self.rcv_adv:
                return True
        elif self.rcv_adv > rcv_nxt:
            if seq < self.rcv_adv and seq + length > rcv_nxt:
                return True
        elif seq == rcv_nxt and flags & (ACK | RST):
            return True  # no room for data, but the ACK counts; `_receive_text` drops the rest
        if flags & RST:
            self.layer.counters.tcp_resets_ignored += 1
            return False
        self.layer.counters.tcp_out_of_window += 1
        if size and seq + length <= rcv_nxt and self.sack_ok:
            # All of it had arrived before: say so (RFC 2883), then the peer can tell a needless
            # retransmission from a loss.
            if self.receive_queue is None:
                self.receive_queue = ReceiveQueue()
            self.receive_queue.duplicate = (seq, seq + size)
        if length and not flags & SYN:
            self.send_ack(now)  # the peer waits for it; only bare segments make ACK storms
        else:
            self.send_challenge(now)
        return False

    def _receive_reset(self, seq: int, now: float) -> None:
        """RFC 9293 3.10.7.4, second; RFC 5961 section 3: only the exact number counts."""
        if seq != self.rcv_nxt:
            self.layer.counters.tcp_resets_ignored += 1
            again = self.challenged_at + CHALLENGE_INTERVAL
            if now >= again:
                self.send_challenge(now)
            elif self.ack_at > again:
                # A peer that meant it says so once, and if it is not asked now it has to be later;
                # any ACK that goes out until then does it as well.
                self.ack_at = again
                self.arm(again)
            return
        self.layer.counters.tcp_resets_in += 1
        if self.state == SYN_RECEIVED:
            self.fail(errno.ECONNREFUSED, now)
        elif self.state == CLOSE_WAIT:
            self.fail(errno.EPIPE, now)  # as Linux: the peer had finished sending
        elif self.state in (CLOSING, LAST_ACK):
            self.finish(now)
        else:
            self.fail(errno.ECONNRESET, now)

    def _receive_ack(
        self, packet: Packet, header: TcpHeader, seq: int, size: int, now: float
    ) -> bool:
        """RFC 9293 3.10.7.4, fifth: the ACK field.  False if the segment ends here."""
        ack = unwrap(header.ack, self.snd_una)
        if self.state == SYN_RECEIVED:
            if not self.snd_una < ack <= self.snd_nxt:
                self.layer.reset_stranger(packet, header, size, now)
                return False
            self.become_established(header, now)
        if ack > self.snd_nxt:
            self.layer.counters.tcp_ack_unsent += 1
            self.send_challenge(now)
            return False
        if ack < self.snd_una - self.max_snd_wnd:
            # RFC 5961 section 5: too old to be anything but a guess.
            self.layer.counters.tcp_ack_too_old += 1
            self.send_challenge(now)
            return False
        # Only now is it believable enough to change anything.  RFC 7323 4.3 has the timestamp noted
        # before, but then one good guess at the sequence number makes all that the peer sends old.
        flags = header.flags
        self._note_stamp(header, seq, now)
        if self.ecn_ok:
            self._note_marks(packet, flags, now)
        window = header.window << self.snd_scale
        is_duplicate = (
            ack == self.snd_una
            and not size
            and not flags & FIN
            and window == self.snd_wnd
            and self.snd_una != self.snd_nxt
        )
        if ack >= self.snd_una and (
            self.snd_wl1 < seq or (self.snd_wl1 == seq and self.snd_wl2 <= ack)
        ):
            self.snd_wl1 = seq
            self.snd_wl2 = ack
            if window != self.snd_wnd:
                self._change_window(window)
        if self.persist_at < inf:
            self.retries = 0  # the peer lives, its window is closed
        stamp = header.timestamp
        echo = stamp[1] if stamp is not None and self.ts_ok else None
        blocks: tuple[tuple[int, int], ...] = ()
        dsack: tuple[int, int] | None = None
        if header.sack_blocks and self.sack_ok:
            blocks, dsack = self.check_blocks(header, ack)
        if ack >= self.snd_una:
            is_news = ack > self.snd_una
            self.acknowledge(ack, blocks, dsack, echo, is_duplicate and not blocks, now)
            if is_news:
                self._after_ack()
                self._check_fin_acked(now)
        elif blocks:
            self.acknowledge(self.snd_una, blocks, dsack, None, False, now)
        return True

    def _check_fin_acked(self, now: float) -> None:
        """Move on if our FIN has been acknowledged."""
        if not self.fin_queued or self.snd_una <= self.write_end:
            return
        if self.state == FIN_WAIT_1:
            self.state = FIN_WAIT_2
            self.start_fin_wait(now)
        elif self.state == CLOSING:
            self.enter_time_wait(now)
        elif self.state == LAST_ACK:
            self.finish(now)

    def start_fin_wait(self, now: float) -> None:
        """FIN_WAIT_2 has begun; see `timing`."""
        raise NotImplementedError

    def _receive_text(
        self, seq: int, data: Buffer, is_fin: bool, gso_size: int, now: float
    ) -> None:
        """RFC 9293 3.10.7.4, seventh and eighth: the data and the FIN."""
        if self.state not in MAY_RECEIVE:
            return  # the peer had finished already; what it repeats has been acknowledged
        counters = self.layer.counters
        end = seq + len(data)
        if is_fin and end <= self.rcv_adv and self.fin_seq is None:
            self.fin_seq = end
        rcv_nxt = self.rcv_nxt
        if end > self.rcv_adv:
            counters.tcp_beyond_window += 1
            end = max(self.rcv_adv, seq)
            data = data[: end - seq]
            self.schedule_ack()
        if self.fin_seq is not None and end > self.fin_seq:
            counters.tcp_beyond_fin += 1
            end = max(self.fin_seq, seq)
            data = data[: end - seq]
        if seq < rcv_nxt:
            counters.tcp_duplicates += 1
            if self.receive_queue is None:
                self.receive_queue = ReceiveQueue()
            if data and self.sack_ok:
                self.receive_queue.duplicate = (seq, min(rcv_nxt, end))
            data = data[rcv_nxt - seq :]
            seq = rcv_nxt
            self.schedule_ack()
        if data and self.is_orphan:
            # RFC 9293 3.10.7.4 / RFC 2525 2.17: nobody will ever read this, and the peer must know.
            counters.tcp_after_close += 1
            self.send_reset(now)
            self.fail(errno.ECONNRESET, now)
            return
        if data:
            queue = self.receive_queue
            if queue is None:
                queue = self.receive_queue = ReceiveQueue()
            if seq == rcv_nxt:
                if queue.is_ahead():
                    queue.insert(seq, data, is_next=True)
                    self.rcv_nxt = queue.advance(seq)
                    self.schedule_ack()  # RFC 5681 4.2: at once when a gap is filled
                else:
                    queue.append(data)
                    self.rcv_nxt = end
                self.note_data(self.rcv_nxt - rcv_nxt, gso_size, now)
                if self.is_read_closed:
                    queue.take(queue.size)
            else:
                counters.tcp_out_of_order += 1
                if not queue.insert(seq, data):
                    counters.tcp_out_of_order_dropped += 1
                # RFC 5681 4.2: at once, so that the peer can count; one for each segment.
                self.quick_acks = QUICK_ACKS
                self.send_ack(now)
        if self.fin_seq == self.rcv_nxt:
            self._receive_fin(now)
        elif is_fin and not data:
            self.schedule_ack()

    def _receive_fin(self, now: float) -> None:
        """The peer's stream is complete."""
        self.rcv_nxt += 1
        self.rcv_adv = max(self.rcv_adv, self.rcv_nxt)
        self.is_fin_received = True
        if self.state == ESTABLISHED:
            self.state = CLOSE_WAIT
            if self.layer.gives_turns:
                self.hold_ack(now)
            else:
                self.schedule_ack()
        elif self.state == FIN_WAIT_1:
            self.state = CLOSING
            self.schedule_ack()
        else:
            self.send_ack(now)
            self.enter_time_wait(now)
        self.layer.events.raise_event(self, RD)

    # opening

    def _receive_in_syn_sent(
        self, packet: Packet, header: TcpHeader, data: Buffer, now: float
    ) -> None:
        """RFC 9293 3.10.7.3."""
        flags = header.flags
        ack = unwrap(header.ack, self.snd_nxt)
        if flags & ACK and ack != self.snd_nxt:
            if not flags & RST:
                self.clear_half_open(packet, header, len(data), now)
            else:
                self.layer.counters.tcp_resets_ignored += 1
            return
        if flags & RST:
            if flags & ACK:
                self.layer.counters.tcp_resets_in += 1
                self.fail(errno.ECONNREFUSED, now)
            else:
                self.layer.counters.tcp_resets_ignored += 1
            return
        if not flags & SYN:
            self.layer.counters.tcp_no_ack += 1
            return
        self.irs = header.seq
        self.rcv_nxt = self.last_ack_sent = header.seq + 1
        self.rcv_adv = self.rcv_nxt + min(self.rcv_buffer, 0xFFFF)
        self.accept_options(header, now)
        if not flags & ACK:
            # Both sides have called at once (RFC 9293 3.5 figure 7).
            self.state = SYN_RECEIVED
            self.retries = 0
            self.send_syn(now)
            return
        self.become_established(header, now)
        if data or flags & FIN:
            self._receive_text(self.rcv_nxt, data, bool(flags & FIN), packet.gso_size, now)
            self.schedule_ack()
        elif self.layer.ip.is_local(self.remote[0]):
            self.send_ack(now)  # a segment less saves nobody's time, and backlogs fill up in order
        else:
            self.hold_ack(now)
