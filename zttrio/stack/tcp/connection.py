"""One TCP connection as the program sees it: what it can ask, and how a connection ends.

The rest of a connection is in the classes it builds on: `receive` (what arrives), `recovery` (what
acknowledgements mean), `send` (what goes out), `tcb` (what is remembered).
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING, Any

import attrs

from zttrio.header.address import ip_text
from zttrio.header.tcp import ACK, SYN, TcpHeader
from zttrio.stack.events import CLOSE, CONN, ERR, RD, WR

from .receive import Receiver
from .recovery import ORPHAN_RETRIES
from .scoreboard import IN_FLIGHT
from .sendqueue import SendQueue
from .seq import MASK
from .state import (
    CLOSE_WAIT,
    CLOSED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    MAY_QUEUE,
    SENDS_DATA,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import PathError

__all__ = ["TcpConnection"]

_GONE = CONN | RD | WR | ERR | CLOSE
_REASONS = {
    errno.ECONNREFUSED: "refused by the peer",
    errno.ECONNRESET: "reset by the peer",
    errno.EPIPE: "reset by the peer, which had finished sending",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNABORTED: "the network was left",
}


class TcpConnection(Receiver):
    """A connection; made by `TcpLayer.connect` or `TcpListener.accept`.

    No method waits or raises for what the network does: failures are kept in `error` and reported
    by the next call that would have to hide them, once, as on Linux.
    """

    __slots__ = ()

    # what the program reads

    @property
    def is_readable(self) -> bool:
        """True if `receive` would return something other than None, or raise."""
        queue = self.receive_queue
        return bool(
            (queue is not None and queue.size)
            or self.is_fin_received
            or self.error
            or self.is_read_closed
            or self.state in (CLOSED, TIME_WAIT)
        )

    @property
    def is_writable(self) -> bool:
        """True if `send` would take a third of the buffer or more, or raise."""
        if self.state in MAY_QUEUE and not self.error and not self.fin_queued:
            return 3 * self.send_queued <= 2 * self.send_buffer
        return self.state not in (SYN_SENT, SYN_RECEIVED) or bool(self.error)

    @property
    def send_queued(self) -> int:
        """Octets from the program that the peer has not acknowledged."""
        return 0 if self.send_queue is None else len(self.send_queue)

    @property
    def receive_queued(self) -> int:
        """Octets in order that the program has not read."""
        return 0 if self.receive_queue is None else self.receive_queue.size

    def take_error(self) -> int:
        """The errno that nobody was told yet, and forget it: SO_ERROR."""
        error, self.error = self.error, 0
        return error

    def _raise_error(self) -> None:
        if self.error:
            error = self.take_error()
            why = _REASONS.get(error) or errno.errorcode.get(error, str(error))
            raise OSError(error, f"{self}: {why}")

    def __str__(self) -> str:
        address, port = self.remote
        return f"tcp connection to {ip_text(address)} port {port}"

    # sending and receiving

    def send(self, data: Buffer, now: float) -> int:
        """Take *data* for sending and return how many octets were taken, 0 if the buffer is full.

        ``bytes`` and views into ``bytes`` are kept by reference, everything else is copied.

        Raises:
            OSError: ENOTCONN before the connection is established; the connection's error, once,
                after it has failed; EPIPE then, and after `shutdown_write`.
        """
        del now
        self._raise_error()
        if self.state not in MAY_QUEUE or self.fin_queued:
            if self.state in (SYN_SENT, SYN_RECEIVED):
                raise OSError(errno.ENOTCONN, f"{self}: not established yet")
            raise OSError(errno.EPIPE, f"{self}: cannot send any more")
        if isinstance(data, memoryview) and (data.itemsize != 1 or data.ndim != 1):
            data = data.cast("B")
        queue = self.send_queue
        if queue is None:
            queue = self.send_queue = SendQueue(self.write_end)
        room = self.send_buffer - len(queue)
        size = len(data)
        if size > room:
            if room <= 0:
                return 0
            data = memoryview(data)[:room]
            size = room
        queue.append(data)
        self.write_end = queue.end
        self.mark_dirty()
        return size

    def receive(self, limit: int, now: float) -> bytes | None:
        """At most *limit* octets; None if nothing is there yet, ``b""`` at the end of the stream.

        Raises:
            OSError: the connection has failed, once; ENOTCONN before it is established.
        """
        queue = self.receive_queue
        if queue is not None and queue.size:
            data = queue.take(limit)
            self._update_window(now)
            return data
        return None if self._receives_more() else b""

    def receive_into(self, buffer: bytearray | memoryview, now: float) -> int | None:
        """As `receive`, into *buffer*; return the number of octets, None if there are none yet.

        Raises:
            OSError: as `receive`.
        """
        queue = self.receive_queue
        if queue is not None and queue.size:
            size = queue.take_into(buffer)
            self._update_window(now)
            return size
        return None if self._receives_more() else 0

    def peek(self, limit: int, now: float) -> bytes | None:
        """As `receive`, and what it returns stays to be received (MSG_PEEK).

        Raises:
            OSError: as `receive`.
        """
        del now
        queue = self.receive_queue
        if queue is not None and queue.size:
            return queue.peek(limit)
        return None if self._receives_more() else b""

    def _receives_more(self) -> bool:
        """Nothing is queued: False at the end of the stream."""
        if self.is_fin_received and not self.error:
            return False
        self._raise_error()
        if self.is_read_closed or self.state in (CLOSED, TIME_WAIT):
            return False
        if self.state in (SYN_SENT, SYN_RECEIVED):
            raise OSError(errno.ENOTCONN, f"{self}: not established yet")
        return True

    def _update_window(self, now: float) -> None:
        """The program has read: tell the peer if that opens the window a good deal.

        RFC 9293 3.8.6.2.2 with Fr = 1/2; and only if the peer may be waiting for it, since the
        next ACK tells it anyway.
        """
        if self.is_fin_received or self.state not in (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2):
            return
        gain = self.rcv_nxt + self.rcv_buffer - self.receive_queued - self.rcv_adv
        if gain >= min(self.rcv_buffer >> 1, 2 * self.rcv_mss) and (
            gain >= self.rcv_adv - self.rcv_nxt
        ):
            self.send_ack(now)

    # ending

    def shutdown_write(self, now: float) -> None:
        """No more data will be sent; what is queued will, and then a FIN.

        Raises:
            OSError: ENOTCONN, there is no connection.
        """
        del now
        if self.state in (SYN_SENT, CLOSED) and not self.fin_queued:
            raise OSError(errno.ENOTCONN, f"{self}: not connected")
        self._queue_fin()

    def _queue_fin(self) -> None:
        if self.fin_queued:
            return
        self.fin_queued = True
        if self.state in (ESTABLISHED, SYN_RECEIVED):
            # RFC 9293 3.10.4: a FIN that waits for SYN_RECEIVED to end is sent behind the data.
            if self.state == ESTABLISHED:
                self.state = FIN_WAIT_1
        elif self.state == CLOSE_WAIT:
            self.state = LAST_ACK
        self.mark_dirty()
        if self.wanted & WR:
            self.layer.events.raise_event(self, WR)

    def shutdown_read(self, now: float) -> None:
        """No more data is wanted: what is queued can be read, what comes later is thrown away."""
        del now
        self.is_read_closed = True
        self.layer.events.raise_event(self, RD)

    def close(self, now: float) -> None:
        """The program is done: finish in the background, or reset if data would be lost unread.

        Resetting is what RFC 2525 2.17 asks for and Linux does: the peer learns that what it sent
        was not read.  With `TcpOptions.linger` 0 the connection is reset in any case.
        """
        if self.is_orphan:
            return
        self.is_orphan = True
        if self.state in (SYN_SENT, CLOSED, TIME_WAIT):
            if self.state == SYN_SENT:
                self._end(now)
            return
        if self.options.linger == 0:
            self.abort(now)
            return
        if self.receive_queued and not self.is_fin_received:
            self.layer.counters.tcp_aborts_unread += 1
            self.abort(now)
            return
        if self.receive_queue is not None:
            self.receive_queue.discard()
        if not self.layer.admit_orphan(self):
            self.abort(now)
            return
        self._queue_fin()
        if self.state == FIN_WAIT_2:
            self.start_fin_wait(now)

    def abort(self, now: float) -> None:
        """End the connection at once, with a reset if the peer has to know."""
        self.is_orphan = True
        if self.state not in (CLOSED, TIME_WAIT, SYN_SENT):
            self.send_reset(now)
        self._end(now)

    def fail(self, error: int, now: float) -> None:
        """End the connection with *error*, which the program's next call will raise."""
        if self.state in (SYN_SENT, SYN_RECEIVED):
            self.layer.counters.tcp_failed_opens += 1
        if not self.is_orphan:
            self.error = error
        self._end(now)

    def finish(self, now: float) -> None:
        """End the connection in peace."""
        self._end(now)

    def _end(self, now: float) -> None:
        """Leave the tables; what has been received can still be read."""
        if self.state == CLOSED:
            return
        was_time_wait = self.state == TIME_WAIT
        self.state = CLOSED
        self._stop()
        if not was_time_wait:
            self.layer.forget(self, now)
        if self.binding is not None:
            self.binding.release()
            self.binding = None
        self.layer.events.raise_event(self, _GONE)

    def _stop(self) -> None:
        """Nothing is sent any more: no timers, no send queue."""
        self.rto_at = self.tail_at = self.reorder_at = inf
        self.persist_at = self.ack_at = self.life_at = inf
        self.ack_octets = 0
        self.ack_now = False
        if self.send_queue is not None:
            self.send_queue.clear()
            self.send_queue = None
        if self.is_orphan:
            self.receive_queue = None

    def enter_time_wait(self, now: float) -> None:
        """Both directions are finished: somebody small keeps watch from here on."""
        self.state = TIME_WAIT
        self._stop()
        self.layer.keep_time_wait(self, now)
        self.layer.events.raise_event(self, RD | WR | CLOSE)

    def time_wait_is_over(self) -> None:
        """TIME_WAIT has ended; the port is already given back."""
        self.state = CLOSED

    def start_fin_wait(self, now: float) -> None:
        """FIN_WAIT_2 has begun: an orphan does not stay for ever (RFC 9293 3.6, as Linux)."""
        if self.is_orphan:
            self.life_at = now + self.layer.config.fin_timeout
            self.arm(self.life_at)

    # opening

    def open(self, now: float) -> None:
        """Send the first SYN."""
        self.state = SYN_SENT
        self.snd_una = self.iss
        self.snd_nxt = self.write_end = self.iss + 1
        self.last_sent_at = now
        self.send_syn(now)
        self.rto_at = now + self.rtt.timeout()
        self.arm(self.rto_at)

    def send_syn(self, now: float) -> None:
        """Send our SYN; with an ACK, and what both can do, if the peer's has come."""
        is_answer = self.state == SYN_RECEIVED
        window = min(self.rcv_buffer, 0xFFFF)
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            self.iss & MASK,
            self.rcv_nxt & MASK if is_answer else 0,
            SYN | ACK if is_answer else SYN,
            window,
            mss=self.adv_mss,
            window_scale=self.rcv_scale if self.scale_ok or not is_answer else None,
            sack_permitted=self.sack_ok or not is_answer,
            timestamp=(
                (self.timestamp(now), self.ts_recent) if self.ts_ok or not is_answer else None
            ),
        )
        self.rcv_adv = self.rcv_nxt + window
        self.last_ack_sent = self.rcv_nxt
        self.layer.send_header(
            self.local[0],
            self.remote[0],
            header,
            now,
            hop_limit=self.options.hop_limit,
            traffic_class=self.options.traffic_class & 0xFC,
        )

    def measure_handshake(self, header: TcpHeader, now: float) -> None:
        """Take the round trip of the SYN as the first sample (RFC 6298 section 5)."""
        if not self.retries:
            self.rtt.sample(now - self.last_sent_at, now)
        else:
            if header.timestamp is not None and self.ts_ok:
                age = (self.timestamp(now) - header.timestamp[1]) & MASK
                self.rtt.sample(max(age, 1) / 1000, now)
            else:
                self.rtt.rto = max(self.rtt.rto, 3.0)  # RFC 6298 5.7
            # RFC 5681 3.1: a lost SYN is a sign of congestion, so start with one segment.
            self.congestion.cwnd = self.mss
            self.retries = 0
        self.rtt.backoff = 0

    # settings

    def configure(self, **changes: Any) -> None:
        """Change some of `options`.

        Raises:
            ValueError: a value is out of range.
            TypeError: there is no such option.
        """
        before = self.options
        self.options = options = attrs.evolve(before, **changes)
        config = self.layer.config
        if options.receive_buffer != before.receive_buffer:
            self.rcv_buffer = options.receive_buffer or config.receive_buffer
        if options.send_buffer != before.send_buffer:
            self.send_buffer = options.send_buffer or config.send_buffer
            self.layer.events.raise_event(self, WR)
        if options.max_segment != before.max_segment and self.state != SYN_SENT:
            self.measure_path()
        if before.cork and not options.cork:
            self.pushed = self.write_end
        self.mark_dirty()

    # time

    def handle_timer(self, now: float) -> None:
        """Do what is due; see `zttrio.stack.timers.TimerOwner`."""
        self.deadline = now  # so that `arm` leaves the queue alone until the end of this
        if self.tail_at <= now:
            self.send_tail_probe(now)  # moves the retransmission timer, if both are due
        if self.rto_at <= now:
            if self.state in (SYN_SENT, SYN_RECEIVED):
                self._syn_time_out(now)
            else:
                self.time_out(now)
        if self.reorder_at <= now:
            self.reorder_time_out(now)
        if self.persist_at <= now:
            self._persist_time_out(now)
        if self.ack_at <= now:
            self.ack_at = inf
            self.is_interactive = False  # nothing came along to carry the ACK
            self.send_ack(now)
        if self.life_at <= now:
            self._life_time_out(now)
        self.deadline = min(
            self.rto_at,
            self.tail_at,
            self.reorder_at,
            self.persist_at,
            self.ack_at,
            self.life_at,
        )

    def _syn_time_out(self, now: float) -> None:
        config = self.layer.config
        limit = config.syn_retries if self.state == SYN_SENT else config.syn_ack_retries
        self.retries += 1
        if self.retries > limit:
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
            return
        self.layer.counters.tcp_retransmits += 1
        self.send_syn(now)
        # Not bounded by rto_max: a SYN costs the network little, and 127 s is what people expect.
        self.rto_at = now + config.rto_initial * (1 << self.retries)

    def _persist_time_out(self, now: float) -> None:
        self.persist_at = inf
        if not self.snd_wnd:
            self.retries += 1
        # An orphan does not ask for ever, whatever the peer answers: RFC 6429 section 4.
        if self.has_given_up(now) or (self.is_orphan and self.rtt.backoff > ORPHAN_RETRIES):
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
        else:
            self.probe_window(now)

    def _life_time_out(self, now: float) -> None:
        self.life_at = inf
        if self.is_orphan and self.state == FIN_WAIT_2:
            self.layer.counters.tcp_orphans_dropped += 1
            self._end(now)

    # the network

    def path_failed(self, error: PathError, seq: int, now: float) -> None:
        """An ICMP error, or the IP layer, is about a segment of ours that started at *seq*.

        The layer has checked that the number is one that is in flight (RFC 5927 section 4).
        """
        if error.error == errno.EMSGSIZE:
            self._lower_mtu(error, now)
        elif self.state in (SYN_SENT, SYN_RECEIVED):
            # RFC 5461 section 4: nobody is helped by trying the same for two minutes.
            self.fail(error.error, now)
        else:
            # RFC 5927 5.2: hard errors for an established connection are soft errors.
            self.soft_error = error.error

    def _lower_mtu(self, error: PathError, now: float) -> None:
        """Packets of ours are too long for the path (RFC 1191, RFC 8201)."""
        ip = self.layer.ip
        if error.reporter:
            ip.lower_path_mtu(self.remote[0], error.mtu, now)
        before = self.mss
        self.measure_path()
        if self.mss >= before or self.state not in SENDS_DATA:
            return
        # What was too long is lost for sure, and no sign of congestion: send it again at once.
        board = self.board
        board.track()
        for piece in board.pieces:
            if piece.state == IN_FLIGHT and min(piece.mss, piece.end - piece.start) > self.mss:
                board.mark_lost(piece)
        if board.lost:
            self.must_resend = True
            self.mark_dirty()
